from isaac_hydra_ext.appo_runner import train as train
from isaac_hydra_ext.evaluation.loaded_policy import load_policy as load_policy

__version__: str
