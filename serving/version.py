"""The version of this software, read once: looking it up reads files."""

from importlib.metadata import version

SOFTWARE = version("tessera-federated")
