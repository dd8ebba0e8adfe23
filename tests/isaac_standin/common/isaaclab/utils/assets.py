"""Stand-in: where assets are."""

NUCLEUS_ASSET_ROOT_DIR = "/stand-in/assets"
