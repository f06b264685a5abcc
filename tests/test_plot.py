"""Plots of several runs: which runs share a curve, and the labels of curves."""

import json
from collections.abc import Sequence
from itertools import combinations
from math import isnan, nan
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from parallel_rl import main
from parallel_rl.commands import copies, seeds
from parallel_rl.commands.run_directory import CONFIG_FILE, write_json
from parallel_rl.config import train_config
from parallel_rl.utils.plots import ended_early, style_axes

COLUMNS = "steps,seconds,episodes,mean_return,mean_length"


def run(
    directory: Path, steps: Sequence[int] = range(100, 1100, 100), first: int = 0, agent: str = "ppo", **settings: Any
) -> str:
    """Write what is drawn of a run; its first episodes end in row `first`."""
    directory.mkdir(parents=True)
    write_json(directory / CONFIG_FILE, train_config(agent, {"steps": 1000} | settings).record())
    rows = [f"{step},{step / 50},{row},{nan if row < first else step / 2},9" for row, step in enumerate(steps)]
    (directory / "metrics.csv").write_text("\n".join([COLUMNS, *rows, ""]))
    return str(directory)


pytestmark = pytest.mark.pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Panels that would be drawn."""
    panels: list[Any] = []
    monkeypatch.setattr("parallel_rl.utils.plots.plot_runs", lambda shown, *_, **__: panels.append(shown))
    return panels


def shown_in(panels: Any) -> dict[str, dict[str, list[str]]]:
    return {
        task: {label: [Path(one.name).name for one in runs] for label, runs in groups.items()}
        for task, groups in panels.items()
    }


def test_runs_that_differ_only_in_seeds_are_one_curve(tmp_path: Path, drawn: list[Any]) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", seed=7), run(tmp_path / "c", env_kwargs=("g=9.8",), lr=0.1)]
    assert main.main(["plot", *runs]) == 0
    assert shown_in(drawn[0]) == {
        "CartPole-v1": {"no env_kwargs, lr=0.001": ["a", "b"], "env_kwargs=(g=9.8), lr=0.1": ["c"]}
    }


def test_runs_that_collect_or_are_called_back_in_another_way_have_curves_of_their_own(
    tmp_path: Path, drawn: list[Any]
) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", lag=1), run(tmp_path / "c", callback=("mine:Curriculum",))]
    assert main.main(["plot", *runs]) == 0
    labels = {"ppo": ["a"], "lag=1": ["b"], "callback=(mine:Curriculum)": ["c"]}
    assert shown_in(drawn[0]) == {"CartPole-v1": labels}


def test_runs_that_differ_only_in_length_are_one_curve_unless_they_anneal(tmp_path: Path, drawn: list[Any]) -> None:
    for anneal, labels in ((False, ["ppo"]), (True, ["steps=1000", "steps=2000"])):
        runs = [run(tmp_path / f"{anneal} {number}", anneal_lr=anneal) for number in range(2)]
        longer = train_config("ppo", {"steps": 2000, "anneal_lr": anneal}).record()
        write_json(Path(runs[1]) / CONFIG_FILE, longer)
        assert main.main(["plot", *runs]) == 0
        assert [*shown_in(drawn[-1])["CartPole-v1"]] == labels


def test_a_run_that_was_resumed_with_other_settings_shows_both(tmp_path: Path, drawn: list[Any]) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b")]
    file = tmp_path / "b" / CONFIG_FILE
    resumed = [{"changed": {"lr": 1e-4}}, {}, {"changed": {"lr": 2e-4}}]
    write_json(file, json.loads(file.read_text()) | {"resumed": resumed})
    assert main.main(["plot", *runs]) == 0
    assert shown_in(drawn[0]) == {"CartPole-v1": {"lr=0.001": ["a"], "lr=0.001 then 0.0001 then 0.0002": ["b"]}}


def test_every_task_has_a_panel_with_its_own_differences(tmp_path: Path, drawn: list[Any]) -> None:
    runs = [
        run(tmp_path / "a", batch_size=512),
        run(tmp_path / "b", env_id="Acrobot-v1", lr=0.1),
        run(tmp_path / "c", env_id="Acrobot-v1", lr=0.2),
    ]
    assert main.main(["plot", *runs]) == 0
    assert shown_in(drawn[0]) == {"CartPole-v1": {"ppo": ["a"]}, "Acrobot-v1": {"lr=0.1": ["b"], "lr=0.2": ["c"]}}


def test_labels_are_of_runs_or_of_curves(tmp_path: Path, drawn: list[Any], capsys: pytest.CaptureFixture) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", seed=7), run(tmp_path / "c", lr=0.1)]
    assert main.main(["plot", *runs, "--labels", "slow", "fast"]) == 0
    assert main.main(["plot", *runs, "--labels", "x", "--labels", "y", "--labels", "x"]) == 0
    assert [shown_in(panels)["CartPole-v1"] for panels in drawn] == [
        {"slow": ["a", "b"], "fast": ["c"]},
        {"x": ["a", "c"], "y": ["b"]},
    ]
    assert main.main(["plot", *runs, "--labels", "x"]) == 1
    assert "--labels takes one for each of the 2 curves, or of the 3 runs" in capsys.readouterr().err


def test_plot_reports_runs_that_ended_early(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", range(100, 500, 100)), run(tmp_path / "c", range(100, 2100, 100))]
    assert main.main(["plot", *runs, "--out", str(tmp_path / "curves.png")]) == 0
    said = capsys.readouterr().out
    assert f"(1)       {runs[0]} ends at 1,000 of 2,000 steps" in said, "others went on"
    assert f"(2)       {runs[1]} ends at 400 of 1,000 steps" in said
    assert "(3)" not in said


def test_plot_takes_a_complete_run_as_complete_though_its_last_steps_filled_no_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    complete = run(tmp_path / "a", range(100, 900, 100))
    (tmp_path / "a" / "summary.json").write_text('{"steps": 1000}')
    assert main.main(["plot", complete, "--out", str(tmp_path / "curves.png")]) == 0
    assert "ends at" not in capsys.readouterr().out


def test_pictures_of_seeds_and_copies_take_complete_runs_as_complete_too(tmp_path: Path, drawn: list[Any]) -> None:
    rows = [{"steps": 900, "mean_return": 1.0}]
    config = train_config("ppo", {"steps": 1000, "run_dir": run(tmp_path / "seed_0", [900])})
    (tmp_path / "seed_0" / "summary.json").write_text('{"steps": 1000}')
    seeds._picture(config, {0: config})
    copies._write(config, [{"id": 0, "history": rows, "total_steps": 1000}])
    assert [ended_early(panels) for panels in drawn] == [[], []]
    copies._write(config, [{"id": 0, "history": rows, "total_steps": 900}])
    assert len(ended_early(drawn[-1])) == 1


def test_a_directory_stands_for_the_runs_in_it(tmp_path: Path, drawn: list[Any], capsys: pytest.CaptureFixture) -> None:
    for name in ("a", "CartPole-v1/b", "module/space/Walk-v0/today/seed_0"):
        run(tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert main.main(["plot", str(tmp_path), str(tmp_path / "a")]) == 0
    assert shown_in(drawn[0]) == {"CartPole-v1": {"ppo": ["b", "a", "seed_0"]}}
    assert main.main(["plot", str(tmp_path / "notes")]) == 1
    assert "notes is not a run: it has no config.json\n" in capsys.readouterr().err
    assert main.main(["evaluate", str(tmp_path / "CartPole-v1")]) == 1
    assert f"it has no config.json; {tmp_path}/CartPole-v1/b is one\n" in capsys.readouterr().err
    assert main.main(["evaluate", str(tmp_path / "a" / "config.json")]) == 1
    assert f"a/config.json is not a run: it has no config.json; {tmp_path / 'a'} is one\n" in capsys.readouterr().err


def test_what_is_no_run_in_a_directory_of_runs_is_left_out_and_named(
    tmp_path: Path, drawn: list[Any], capsys: pytest.CaptureFixture
) -> None:
    run(tmp_path / "a")
    foreign = tmp_path / "web" / "config.json"
    foreign.parent.mkdir()
    foreign.write_text('{"port": 80}')
    assert main.main(["plot", str(tmp_path)]) == 0
    assert shown_in(drawn[0]) == {"CartPole-v1": {"ppo": ["a"]}}
    assert capsys.readouterr().out.startswith(f"left out  {foreign} is not the configuration of a run\n")
    assert main.main(["plot", str(foreign.parent)]) == 1
    assert capsys.readouterr().err == f"error: {foreign} is not the configuration of a run\n"
    (tmp_path / "a" / "config.json").unlink()
    assert main.main(["plot", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: no run to plot\n"


def test_ticks_below_a_thousand_have_no_letter() -> None:
    axes = Figure().subplots()
    style_axes(axes, "short")
    for value, text in ((0.25, "0.25"), (0, "0"), (500, "500"), (20_000, "20k"), (2e6, "2M"), (-0.04, "-0.04")):
        assert axes.xaxis.get_major_formatter()(value).replace("\N{MINUS SIGN}", "-") == text


def test_any_metric_can_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("parallel_rl.utils.plots.save_figure", lambda figure, path: figures.append(figure))
    runs = [run(tmp_path / "a"), run(tmp_path / "b", lr=0.1)]
    file = Path(runs[0]) / "metrics.csv"
    file.write_text(file.read_text().replace("mean_length", "entropy"))
    assert main.main(["plot", *runs, "--y", "entropy"]) == 0
    assert f"left out  {runs[1]}: there is no entropy in it" in capsys.readouterr().out
    assert figures[0].subfigs[0].get_supylabel() == "entropy"
    assert {*figures[0].axes[0].lines[0].get_ydata()} == {9}
    assert main.main(["plot", *runs, "--y", "alpha"]) == 1
    names = "steps, seconds, episodes, mean_return, entropy, mean_length"
    assert f"error: no run has the metric 'alpha'; there are {names}\n" in capsys.readouterr().err


def test_a_run_without_an_episode_is_left_out_and_named(
    tmp_path: Path, drawn: list[Any], capsys: pytest.CaptureFixture
) -> None:
    whole, none = run(tmp_path / "a", first=2), run(tmp_path / "b", first=99, seed=1)
    assert main.main(["plot", whole, none]) == 0
    assert f"left out  {none}: no episode has ended in it" in capsys.readouterr().out
    assert shown_in(drawn[0]) == {"CartPole-v1": {"ppo": ["a"]}}
    assert main.main(["plot", none]) == 1
    assert "error: no episode has ended yet in any of the runs" in capsys.readouterr().err
    (Path(none) / "metrics.csv").write_text("")  # it was stopped before the first update
    assert main.main(["plot", whole, none]) == 0
    assert f"left out  {none}: there is no row of metrics in it" in capsys.readouterr().out
    assert main.main(["plot", none]) == 1
    assert "error: there is no row of metrics yet in any of the runs" in capsys.readouterr().err


@pytest.mark.covering
@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
@pytest.mark.parametrize("x", ["steps", "seconds"])
def test_pictures_are_png_svg_or_pdf_over_steps_or_seconds(tmp_path: Path, suffix: str, magic: bytes, x: str) -> None:
    out = tmp_path / f"curves{suffix}"
    runs = [run(tmp_path / "a"), run(tmp_path / "b", [100], seed=1), run(tmp_path / "c", env_id="Acrobot-v1")]
    assert main.main(["plot", *runs, "--out", str(out), "--x", x]) == 0
    assert out.read_bytes().startswith(magic)


def test_figure_names_runs_axes_and_early_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    runs = [run(tmp_path / "a"), run(tmp_path / "b", [100, 200], seed=1), run(tmp_path / "c", lr=0.1, first=3)]
    assert main.main(["plot", *runs, "--out", str(tmp_path / "curves.svg"), "--x", "seconds"]) == 0
    text = (tmp_path / "curves.svg").read_text().replace("\xa0", " ")
    for said in ("lr=0.001 (2 runs)", "lr=0.1", "seconds of training", "band: from the least to the most", "CartPole"):
        assert said in text
    assert f"(1) {runs[1]} ends at 200 of 1,000" in text


def test_a_run_that_differs_from_no_other_has_the_name_of_its_agent(tmp_path: Path, drawn: list[Any]) -> None:
    runs = [run(tmp_path / "a", lr=0.1), run(tmp_path / "b", lr=0.2), run(tmp_path / "c", env_id="Acrobot-v1")]
    assert main.main(["plot", *runs]) == 0
    assert shown_in(drawn[0]) == {"CartPole-v1": {"lr=0.1": ["a"], "lr=0.2": ["b"]}, "Acrobot-v1": {"ppo": ["c"]}}


def test_agents_differ_in_their_names_and_settings_only_from_the_same_agent(tmp_path: Path, drawn: list[Any]) -> None:
    runs = [
        run(tmp_path / "a", hidden_sizes=(128, 64)),
        run(tmp_path / "b", hidden_sizes=()),
        run(tmp_path / "c", agent="dqn", lr=0.1, num_envs=1),
        run(tmp_path / "d", agent="dqn", lr=0.1, num_envs=1, seed=1),
    ]
    assert main.main(["plot", *runs]) == 0
    labels = {"ppo, hidden_sizes=128x64": ["a"], "ppo, no hidden_sizes": ["b"], "dqn": ["c", "d"]}
    assert shown_in(drawn[0]) == {"CartPole-v1": labels}
    other = run(tmp_path / "e", agent="dqn", lr=0.1, num_envs=1, env_kwargs=("g=1",))
    assert main.main(["plot", runs[0], other]) == 0
    labels = {"ppo, no env_kwargs": ["a"], "dqn, env_kwargs=(g=1)": ["e"]}
    assert shown_in(drawn[1]) == {"CartPole-v1": labels}


def test_initial_weights_are_named_where_a_run_has_them(tmp_path: Path, drawn: list[Any]) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", load_weights="a"), run(tmp_path / "c", load_weights="a", lr=1.0)]
    assert main.main(["plot", *runs[:2], "--out", str(tmp_path / "x.png")]) == 0
    assert main.main(["plot", runs[0], runs[2], "--out", str(tmp_path / "x.png")]) == 0
    assert [shown_in(panels)["CartPole-v1"] for panels in drawn] == [
        {"ppo": ["a"], "load_weights=a": ["b"]},
        {"lr=0.001": ["a"], "load_weights=a, lr=1": ["c"]},
    ]


def test_how_copies_are_combined_is_shown_only_where_there_are_copies(tmp_path: Path, drawn: list[Any]) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", copies=4), run(tmp_path / "c", copies=4, combine="best")]
    assert main.main(["plot", *runs[:2]]) == 0
    assert main.main(["plot", *runs]) == 0
    assert [shown_in(panels)["CartPole-v1"] for panels in drawn] == [
        {"ppo": ["a"], "copies=4": ["b"]},
        {"ppo": ["a"], "copies=4, combine=mean": ["b"], "copies=4, combine=best": ["c"]},
    ]


def test_runs_with_the_same_seed_and_settings_are_named(
    tmp_path: Path, drawn: list[Any], capsys: pytest.CaptureFixture
) -> None:
    runs = [run(tmp_path / str(number), seed=3) for number in range(3)]
    others = [run(tmp_path / "d", seed=4), run(tmp_path / "e", seed=3, lr=0.1)]
    assert main.main(["plot", *runs, *others]) == 0
    assert "repeated  3 runs on CartPole-v1 have the same settings and seed 3, " in capsys.readouterr().out
    assert main.main(["plot", runs[0], *others]) == 0
    assert "repeated" not in capsys.readouterr().out


def test_the_picture_of_a_single_run_is_in_its_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [run(tmp_path / "all" / "a"), run(tmp_path / "all" / "b", seed=1)]
    for directories, picture in (([runs[0]], f"{runs[0]}/learning_curves.png"), ([str(tmp_path / "all")], None)):
        assert main.main(["plot", *directories]) == 0
        assert f"curves    {picture or 'learning_curves.png'}\n" in capsys.readouterr().out
        assert Path(picture or "learning_curves.png").is_file()


def test_the_mean_of_runs_ends_with_the_shortest_and_each_run_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("parallel_rl.utils.plots.save_figure", lambda figure, path: figures.append(figure))
    runs = [run(tmp_path / "a"), run(tmp_path / "b", range(100, 600, 100), first=1, seed=1)]
    assert main.main(["plot", *runs]) == 0
    *thin, mean = figures[0].axes[0].lines
    assert [line.get_xdata().tolist() for line in thin] == [[*range(100, 1100, 100)], [*range(200, 600, 100)]]
    assert mean.get_xdata()[np.isfinite(mean.get_ydata())].tolist() == [200, 300, 400, 500]
    assert mean.get_linewidth() > max(line.get_linewidth() for line in thin)


def test_numbers_of_runs_that_end_at_the_same_place_overlap_neither_each_other_nor_the_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("parallel_rl.utils.plots.save_figure", lambda figure, path: figures.append(figure))
    runs = [run(tmp_path / str(number), range(100, 500, 100), seed=number) for number in range(4)]
    assert main.main(["plot", *runs]) == 0
    figures[0].draw_without_rendering()
    (axes,) = figures[0].axes
    boxes = [text.get_bbox_patch().get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3", "4"]
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
    assert not any(box.contains(*axes.transData.transform((400, 200))) for box in boxes)


def test_long_labels_do_not_touch_the_curves(tmp_path: Path) -> None:
    """The picture grows with the text below it."""
    runs = [run(tmp_path / str(number), lr=0.1 / (number + 1), seed=number) for number in range(12)]
    sizes = []
    for words in (2, 30):
        labels = [f"{number} " + "word " * words for number in range(12)]
        assert main.main(["plot", *runs, "--out", str(tmp_path / "curves.png"), "--labels", *labels]) == 0
        header = (tmp_path / "curves.png").read_bytes()[16:24]
        sizes.append((int.from_bytes(header[:4]), int.from_bytes(header[4:])))
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] > sizes[0][1] + 300


def test_success_rates_are_drawn_where_a_run_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("parallel_rl.utils.plots.save_figure", lambda figure, path: figures.append(figure))
    with_rates, without = run(tmp_path / "a"), run(tmp_path / "b", seed=1)
    file = Path(with_rates) / "metrics.csv"
    head, *rows = file.read_text().splitlines()
    rates = [nan, *(number / 10 for number in range(1, 10))]
    lines = [f"{head},success_rate", *(f"{row},{rate}" for row, rate in zip(rows, rates, strict=True)), ""]
    file.write_text("\n".join(lines))
    assert main.main(["plot", with_rates, without, "--y", "success_rate"]) == 0
    assert f"left out  {without}: no episode has reported is_success in it" in capsys.readouterr().out
    (axes,) = figures[0].axes
    heights = {round(float(height), 6) for line in axes.lines for height in line.get_ydata() if not isnan(height)}
    assert heights == set(rates[1:])
    assert figures[0].subfigs[0].get_supylabel() == "share of successes in the last 100 episodes"


def test_the_picture_of_the_results_has_a_panel_for_each_task() -> None:
    pytest.importorskip("scipy")
    from benchmarks.learning.report import off_policy_panels, panels_of
    from benchmarks.learning.rows import ROWS

    panels = panels_of({name: {} for name in ROWS})
    assert len(panels) == len({row.task.env_id for row in ROWS.values() if row.task and row.task.agent == "ppo"})
    assert panels["Ant-v5"].keys() == {"with contact forces", "no contact forces"}
    off_policy = off_policy_panels({name: {} for name in ROWS})
    assert off_policy["Pendulum-v1"].keys() == {"SAC", "TD3", "DDPG"}
    assert off_policy["BitFlip-v0"].keys() == {"DQN, with hindsight", "DQN, without hindsight"}
    rows = [rows for each in (panels, off_policy) for rows in each.values()]
    assert {*map(str, ROWS)} >= {name for each in rows for name in each.values()}
    assert not any("published" in label for each in rows for label in (*each, *panels, *off_policy))
