"""Tasks that come with the package: each a package of its own, named in `env.imports`."""
