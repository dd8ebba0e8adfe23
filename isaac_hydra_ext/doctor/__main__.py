"""`python -m isaac_hydra_ext.doctor`, for when `appo` itself does not start."""

from isaac_hydra_ext.doctor.command import main

main()
