"""A run: settings, data, rounds, summary, report. Running and resuming are one function."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arena.config import RunConfig, differences
from arena.errors import InputError
from arena.ledger import Ledger

SCHEMA = 1


def new_run_name(config: RunConfig) -> str:
    """generator-detector-data-seed-time, as in cyclegan-cnnspot-faces-s0-20260131-174500; DETECTOR-labelled-..."""
    data = Path(config.data.source).name or "data"
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    players = [player.short for player in (config.generator, config.detector) if player]
    return f"{'-'.join(players)}-{data}-s{config.seed}-{time}"


def check_same(root: Path, stored: RunConfig, asked: RunConfig) -> None:
    """Raise InputError where somebody asks an existing run for other settings."""
    found = differences(stored.model_dump(), asked.model_dump())
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(
            f"{root} is a run of another configuration: {found[0]}{more}. A run keeps its settings: continue it with "
            f"`{stored.command} --out {root}` alone, or choose a new --out."
        )


def run(config: RunConfig, root: Path, watch: Any, command: str = "") -> dict[str, Any]:
    """Play (or continue, or find finished) the run in `root`; return its summary and leave its report."""
    from arena import build
    from arena.data.source import open_data, open_source, store
    from arena.provenance import provenance
    from arena.round import Arena

    players = (
        build.build(config.generator, config.seed, "generator") if config.generator else None,
        build.build(config.detector, config.seed, "detector"),
    )  # before anything is written: a wrong value is found here
    source = None
    if not (root / "data" / "data.json").exists():
        needs = players[0].needs if players[0] else "labels"
        source = open_source(config.data, needs, players[1].frames > 1, watch.data)
    with Ledger(root) as ledger:
        if ledger.has("summary.json"):
            done = ledger.read("summary.json", "schema", "status", "rounds")
            if done["status"] == "finished":
                return finish(ledger, done, config, watch)
        fabric = build.fabric(config.device, config.precision)
        if not ledger.has("run.json"):
            started = datetime.now(UTC).isoformat(timespec="seconds")
            facts = provenance(config) | {"command": command, "started": started, "ended": None, "weights": {}}
            ledger.write("run.json", {"schema": SCHEMA, "settings": config.model_dump(), "provenance": facts})
        if source is not None:
            store(source, ledger)
        data = open_data(ledger, config.data.codec)
        facts = ledger.read("run.json", "settings", "provenance")["provenance"]

        arena = Arena(config, players, data, ledger, fabric, watch)
        for kind, player in arena.players:
            facts["weights"][getattr(config, kind).short] = getattr(player, "provenance", "from scratch")
        summary = {
            "schema": SCHEMA, "run": ledger.root.resolve().name, "status": "running", "settings": config.model_dump(),
            "provenance": facts, "data": data.summary, "notes": notes(config, facts, arena), "rounds": [],
        }  # fmt: skip
        for note in summary["notes"]:
            watch.note(note)
        for r in range(config.rounds):
            summary["rounds"].append(arena.play(r))
            ledger.write("summary.json", summary)
            watch.round(summary)
        summary["status"] = "finished"
        facts["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
        ledger.write("summary.json", summary)
        ledger.trim_saves()
        return finish(ledger, summary, config, watch)


def finish(ledger: Ledger, summary: dict[str, Any], config: RunConfig, watch: Any) -> dict[str, Any]:
    """Let all rounds meet (arena/game.py) and write the report. A run is finished without either."""
    from arena.report import write_report

    if config.generator and not ledger.has("game/game.json"):
        from arena.build import fabric
        from arena.game import Game

        watch.phase(config.rounds - 1, "matrix")
        try:
            Game(ledger, config, fabric(config.device, config.precision)).play()
        except Exception as error:
            reason = str(error) or type(error).__name__
            watch.note(f"no matrix of the rounds ({reason}): `arena matrix {ledger.root}` makes it")
    write_report(ledger.root)
    return summary


def notes(config: RunConfig, facts: dict[str, Any], arena: Any) -> list[str]:
    """What a reader must know to trust the figures: said once, written to the ledger."""
    found = []
    if config.preset == "quick":
        found.append(
            "preset quick: small nets and few steps, to show the whole path; --preset paper has the published sizes"
        )
    found += [f"{name} starts {text}" for name, text in facts["weights"].items() if text.startswith("from scratch: ")]
    found += arena.data.summary.get("notes", [])
    if arena.ways and arena.panel.note:
        found.append(arena.panel.note)
    return found
