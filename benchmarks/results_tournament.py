"""Write a tournament's figures for docs/results: its tables, heat map and configuration; no images.

python benchmarks/results_tournament.py OUT docs/results/NAME
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from results import table

from arena.files import atomic
from arena.report.table import duration
from arena.report.tournament import (
    Cell,
    cross_table,
    detector_table,
    generator_table,
    made_table,
    matrices,
    verdict,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tournament", type=Path, help="what `arena tournament CONFIG --out OUT` made")
    parser.add_argument("out", type=Path, help="without suffix: OUT.md, OUT.svg and OUT.json are written")
    args = parser.parse_args()
    found = json.loads((args.tournament / "tournament.json").read_text())
    found["provenance"].pop("platform", None)
    for data in [*found["config"]["data"].values(), *(row.get("data_settings", {}) for row in generators(found))]:
        if "/" in data.get("source", ""):
            data["source"] = Path(data["source"]).name  # a folder's name, not where it lay
    with atomic(args.out.with_suffix(".md")) as file:
        file.write(page(found, args.out.stem).encode())
    with atomic(args.out.with_suffix(".json")) as file:
        file.write(json.dumps({k: v for k, v in found.items() if k != "cross"}, indent=1).encode() + b"\n")
    shutil.copyfile(args.tournament / "matrix.svg", args.out.with_suffix(".svg"))


def generators(found: dict[str, Any]) -> list[dict[str, Any]]:
    return found["players"]["generators"]


def asked(value: Any) -> Any:
    """Settings without those that were left open."""
    if isinstance(value, dict):
        return {key: asked(entry) for key, entry in value.items() if entry not in (None, {}, "")}
    return value


def page(found: dict[str, Any], name: str) -> str:
    facts, crossed, made = found["provenance"], cross_table(found), made_table(found)
    config = asked(found["config"])
    spent = ", ".join(f"{work} {duration(seconds)}" for work, seconds in found["seconds"].items())
    parts = [
        f"# {name}",
        f"    arena tournament {name}.yaml --out {name}",
        f"{found['about']} {facts['device']}; torch {facts['torch']}; deepfake-arena {facts['arena']} at "
        f"{facts['git']}. {found['jobs']} jobs: {spent}.",
        "\n".join(f"- {sentence}" for sentence in [*verdict(found), found["league"]["text"]]),
        "AUC with 95 % intervals over images; one seed unless said, so the spread of training again is not in them.\n"
        "*unseen*: mean over generators whose fakes the detector did not train on; *all but one*: trained on all\n"
        f"other generators. Every figure but the crossed pairs is in [{name}.json]({name}.json).",
        "## Detectors", table(*detector_table(found)),
        "## Generators", table(*generator_table(found)),
        *([table(*made)] if made else []),
        "## Trained on one (rows), tested on all (columns)",
        *(part for one in matrices(found) for part in (f"### {one['name']}", matrix(one, found["columns"]))),
        f"![Heat map of every detector's AUC on every generator's fakes]({name}.svg)",
        *(["## Reals of one domain, fakes of another", table(*crossed)] if crossed else []),
        "## Configuration", f"```yaml\n{yaml.safe_dump(config, sort_keys=False, width=110)}```",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def matrix(one: dict[str, Any], columns: list[str]) -> str:
    def text(cell: Cell) -> str:
        return "\n".join([f"**{cell.text}**" if cell.mark else cell.text, *cell.below])

    rows = [[on, *map(text, cells)] for on, cells in one["rows"]]
    if one["left_out"]:
        rows.append(["all but the column's", *map(text, one["left_out"])])
    return table(["trained on", *columns], rows)


if __name__ == "__main__":
    main()
