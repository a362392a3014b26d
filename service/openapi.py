"""`python -m service.openapi > openapi.yaml`: write the contract down."""

import sys
from typing import Any

import yaml  # type: ignore[import-untyped]

from service.app import create_app


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """YAML as a person writes it: a text of several lines is a block."""

    def represent_text(self, text: str) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def render_contract() -> str:
    """The app's contract as YAML."""
    contract = create_app().openapi()
    return str(yaml.dump(contract, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


if __name__ == "__main__":
    sys.stdout.write(render_contract())
