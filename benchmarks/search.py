"""`prune.search` by climb and by Optuna, and what is left of a study whose driver or worker is killed.

    python benchmarks/search.py killed                  # the quickstart model: nothing else is needed
    python benchmarks/search.py ray                     # the same on two nodes of Ray, simulated on this machine
    python benchmarks/search.py sqlite                  # the same with a database as its storage
    python benchmarks/search.py photos --data DATA      # DeiT-Ti: tuned on even classes, KL on odd ones

DATA is described at the top of measure.py. Each command keeps its rows in results/search.json and writes
results/search.md anew. It needs `pip install 'vitrim[search]'`, and for `ray` `pip install 'vitrim[ray]'`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from evaluate import two_nodes
from evaluate import workers as actors
from measure import MODELS, load_model, tokens_of

import vitrim
from vitrim.exporter.pruning.budget import read_budget
from vitrim.exporter.pruning.vit import PrunedViT

RESULTS = Path(__file__).parent / "results"
KILLS = (0.2, 0.55)  # of all plans, after which something dies
KILLED = ("killed", "ray", "sqlite")
DEIT = "DeiT-Ti"
SQLITE = "sqlite:///"
Row = dict[str, Any]
Workers = Callable[["subprocess.Popen[bytes]"], list[int]]


def search(recipe: str, out: Path, settings: Mapping[str, Any], *options: str) -> list[str]:
    """The command line of a search."""
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    words = [sys.executable, "-m", "vitrim.cli", "calibrate", recipe, "-o", str(out), "--quiet"]
    return [*words, "--set", "prune.search.by=optuna", *sets, *options]


def row(name: str, out: Path, seconds: float, **more: Any) -> Row:
    """A search that is done: its figures and a line of its tokens."""
    budget = read_budget(out)
    found = {
        "name": name,
        **budget.statistics["search"],
        "tokens": tokens_of(budget.choosing),
        "seconds": round(seconds, 1),
        **more,
    }
    print(found, flush=True)
    return found


def run(name: str, words: list[str], out: Path) -> Row:
    """Run a search to its end."""
    began = time.perf_counter()
    subprocess.run(words, check=True)
    return row(name, out, time.perf_counter() - began)


def finished(study: str) -> dict[int, float | None]:
    """By number, the values of the trials that a study has finished."""
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    place = Path(study.removeprefix(SQLITE))
    if not place.exists() or not place.stat().st_size:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage: Any
    storage = RDBStorage(study) if study.startswith(SQLITE) else JournalStorage(JournalFileBackend(study))
    studies = storage.get_all_studies()
    trials = storage.get_all_trials(studies[0]._study_id) if studies else []
    return {trial.number: trial.value for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")}


def when(study: str, plans: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for so many finished plans."""
    while len(finished(study)) < plans:
        if process.poll() is not None:
            raise SystemExit("the search was done before anything was killed")
        time.sleep(0.2)


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Workers of a driver."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    found = [int(one) for one in text.split()]
    return [one for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def killed(name: str, words: list[str], out: Path, study: str, trials: int, workers: Workers | None = None) -> Row:
    """A search of which the driver, or a worker, is killed twice, and that goes on to its end.

    Args:
        name, words, out: of the run.
        study: its journal's path or a database's URL.
        trials: plans in the end.
        workers: process numbers of a driver's workers, of which the first is killed; None: the driver is.
    """
    began, lost, at = time.perf_counter(), 0, []
    process = subprocess.Popen(words)
    for share in KILLS:
        when(study, round(share * trials), process)
        if workers is not None:
            os.kill(workers(process)[0], signal.SIGKILL)
        else:
            process.send_signal(signal.SIGKILL)
            process.wait()
        before = finished(study)
        at.append(len(before))
        if workers is None:
            process = subprocess.Popen(words)
        when(study, len(before) + 1, process)
        after = finished(study)
        lost += sum(after.get(number, object()) != value for number, value in before.items())
    if process.wait():
        raise SystemExit(f"{name}: ended with {process.returncode}")
    return row(name, out, time.perf_counter() - began, at=at, gone=lost)


def together(name: str, words: Callable[[Path], list[str]], folder: Path) -> Row:
    """Two commands on one study, as an array of SLURM runs them."""
    began, outs = time.perf_counter(), [folder / "one.json", folder / "two.json"]
    processes = [subprocess.Popen(words(out)) for out in outs]
    if any(process.wait() for process in processes):
        raise SystemExit(f"{name}: failed")
    same = read_budget(outs[0]).blocks == read_budget(outs[1]).blocks
    return row(name, outs[0], time.perf_counter() - began, same=same)


@click.group()
def main() -> None:
    """Measure and write the page."""


def quickstart(folder: Path, trials: int, images: int) -> Callable[..., list[str]]:
    """The command line of a search on the quickstart model, by its output, its study and more options."""

    def words(out: Path, study: str, *options: str) -> list[str]:
        settings = {"prune.search.trials": trials, "images.count": images, "prune.search.storage": study}
        return search("quickstart", out, settings, *options)

    return words


def title(trials: int, images: int, where: str = "") -> str:
    """Of a table."""
    return f"{trials} plans of the quickstart model on {images} images{where}"


count_options = (
    click.option("--trials", default=200, show_default=True),
    click.option("--images", default=128, show_default=True),
)


def counted(command: Callable[..., None]) -> Callable[..., None]:
    """A command that is told how many plans and images."""
    for option in count_options:
        command = option(command)
    return command


@main.command("killed")
@counted
def kills(trials: int, images: int) -> None:
    """The quickstart model, undisturbed and with kills."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "budget.json"
        words, (a, b, c, d, e) = quickstart(folder, trials, images), (str(folder / one) for one in "abcde")
        rows.append(run("1 worker", words(out, a), out))
        rows.append(killed("1 worker, the driver killed twice", words(out, b), out, b, trials))
        two = ("--workers", "2")
        rows.append(killed("2 workers, the driver killed twice", words(out, c, *two), out, c, trials))
        rows.append(killed("2 workers, one of them killed, twice", words(out, d, *two), out, d, trials, children))
        rows.append(together("2 commands on one study", lambda one: words(one, e), folder))
    write("killed", title(trials, images), rows)


@main.command("ray")
@counted
def on_ray(trials: int, images: int) -> None:
    """The quickstart model on two nodes of Ray: undisturbed, and with workers or the driver killed."""
    os.environ.update({"RAY_worker_niceness": "0", "RAY_agent_register_timeout_ms": "240000"})
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "budget.json"
        words, (a, b, c, d) = quickstart(folder, trials, images), (str(folder / one) for one in "abcd")
        rows.append(run("--ray local", words(out, a, "--ray", "local", "--workers", "2"), out))
        with two_nodes() as cluster:
            line = ("--ray", cluster.address)
            rows.append(run("2 nodes", words(out, b, *line), out))
            dying = words(out, c, *line)
            rows.append(killed("2 nodes, a worker killed, twice", dying, out, c, trials, lambda driver: actors()))
            rows.append(killed("2 nodes, the driver killed twice", words(out, d, *line), out, d, trials))
    write("ray", title(trials, images, " on Ray"), rows)


@main.command("sqlite")
@counted
def on_sqlite(trials: int, images: int) -> None:
    """The quickstart model, its study in a database of SQLite that several processes write."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "budget.json"
        words, (a, b, c, d) = quickstart(folder, trials, images), (f"{SQLITE}{folder / one}.db" for one in "abcd")
        two = ("--workers", "2")
        rows.append(run("1 worker", words(out, a), out))
        rows.append(run("2 workers", words(out, b, *two), out))
        rows.append(killed("2 workers, the driver killed twice", words(out, c, *two), out, c, trials))
        rows.append(together("2 commands on one study", lambda one: words(one, d), folder))
    write("sqlite", title(trials, images, " in SQLite"), rows)


@main.command("photos")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Weights and photos.")
@click.option("--trials", default=200, show_default=True)
@click.option("--images", default=128, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--share", default=0.65, show_default=True, help="Of the dense model's GMACs.")
def photos(data: Path, trials: int, images: int, workers: int, share: float) -> None:
    """DeiT-Ti: climb, halving, and every plan on every image."""
    model, checkpoint = MODELS[DEIT]
    place = data.resolve() / "imagenet_sample"
    recipe = {
        "model": {"name": model, "checkpoint": str(data.resolve() / checkpoint)},
        "images": {"path": str(place), "every": 2, "count": images},
        "prune": {"target": {"flops_ratio": share}},
    }
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        file, out = Path(name) / "recipe.yaml", Path(name) / "budget.json"
        file.write_text(json.dumps(recipe))
        common, some = {"prune.search.trials": trials}, ("--workers", str(workers))
        ways = (
            ("climb", {"prune.search.by": "climb"}, ()),
            ("optuna, halving", {"prune.search.stop": "halving"}, some),
            ("optuna, all images", {"prune.search.stop": "none"}, some),
        )
        for title, settings, options in ways:
            rows.append(run(title, search(str(file), out, common | settings, *options), out))
            rows[-1] |= on_others(out, data, place)
            print(rows[-1], flush=True)
        subprocess.run(search(str(file), out, {"prune.search.by": "climb", "prune.search.trials": 0}), check=True)
        rows.insert(0, {"name": "the rule's plan", **on_others(out, data, place)})
    title = f"{DEIT}, {share} of its GMACs, {trials} plans at most on {images} photos of even classes"
    write("photos", title, rows)


def on_others(out: Path, data: Path, place: Path) -> Row:
    """A plan on the photos of odd classes."""
    from vitrim.calibration.images.listing import open_images
    from vitrim.exporter.pruning.load import preprocessing

    model, budget = load_model(DEIT, data), read_budget(out)
    odd = open_images(place, preprocessing(model), classes=1000, every=2, offset=1, count=None)
    found = vitrim.evaluate(PrunedViT(model, budget), odd)
    return {
        "odd": {"images": found.images, "kl": found.kl, "agreement": found.agreement},
        "tokens": tokens_of(budget.choosing),
    }


def write(part: str, title: str, rows: list[Row]) -> None:
    """Keep a part's rows, and the page of all parts."""
    place = RESULTS / "search.json"
    kept = json.loads(place.read_text()) if place.exists() else {}
    command, busy = " ".join(["python", "benchmarks/search.py", *_shown()]), round(os.getloadavg()[2], 1)
    kept[part] = {"command": command, "title": title, "rows": rows, "load": busy, "cores": os.cpu_count()}
    place.write_text(json.dumps(kept, indent=2) + "\n")
    (RESULTS / "search.md").write_text(page(kept))
    print(page(kept))


def _shown() -> list[str]:
    """The command's words, without this machine's paths."""
    return ["DATA" if before == "--data" else word for before, word in zip(sys.argv, sys.argv[1:], strict=False)]


def page(kept: Mapping[str, Any]) -> str:
    """All tables."""
    shown = ["# Searches: what they find, what they cost, and what a kill costs", ""]
    if "photos" in kept:
        part = kept["photos"]
        shown += [f"## {part['title']}", "", f"`{part['command']}`", ""]
        shown += ["| by | plans | given up early | images seen | KL there | KL on odd classes | agreement % | tokens |"]
        shown += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
        for one in part["rows"]:
            odd, here = one["odd"], one.get("kl_of_best", part["rows"][1]["kl_of_rule"])
            cells = [one["name"], one.get("judged", ""), one.get("stopped", ""), one.get("images_seen", "")]
            cells += [f"{here:.4f}", f"{odd['kl']:.4f}", f"{100 * odd['agreement']:.1f}", one["tokens"]]
            shown.append(f"| {' | '.join(map(str, cells))} |")
        shown += ["", f"KL on {part['rows'][0]['odd']['images']} photos of odd classes, in PyTorch.", ""]
    for part in (kept[name] for name in KILLED if name in kept):
        shown += [f"## {part['title']}", "", f"`{part['command']}`", ""]
        shown += ["| run | finished when killed | of them lost | judged anew | plans in the end | KL | seconds |"]
        shown += ["| --- | --- | --- | --- | --- | --- | --- |"]
        for one in part["rows"]:
            cells = [one["name"], ", ".join(map(str, one.get("at", ()))), one.get("gone", ""), one["lost"]]
            cells += [one["judged"], f"{one['kl_of_best']:.6f}", one["seconds"]]
            shown.append(f"| {' | '.join(map(str, cells))} |")
        shown.append("")
        if "load" in part:
            shown += [
                f"Load of the machine in the last quarter of an hour: {part['load']} on {part['cores']} cores.",
                "",
            ]
    if "killed" in kept:
        first, second = kept["killed"]["rows"][:2]
        same = first["tokens"] == second["tokens"] and first["kl_of_best"] == second["kl_of_best"]
        words = "the same plan" if same else "different plans"
        shown += [f"In the first of these tables, the first two rows end at {words}."]
    return "\n".join(shown) + "\n"


if __name__ == "__main__":
    main()
