"""Train what is missing in the table, then write the table and the figures. Interrupted runs continue."""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import tyro
from tqdm import tqdm

from benchmarks.learning.report import Results, off_policy_panels, page, panels_of, plot
from benchmarks.learning.rows import RESULTS, ROWS, result_file, run_one

HERE = Path(__file__).parent


def main(rows: Sequence[str] = tuple(ROWS), jobs: int = 2) -> None:
    """Train what is missing in the table, then write `README.md` and its two pictures next to this file.

    Args:
        rows: the rows of the table to run.
        jobs: number of runs at the same time; at most the number of cores.
    """
    missing = [(row, seed) for row in rows for seed in range(ROWS[row].seeds) if not result_file(row, seed).exists()]
    RESULTS.mkdir(exist_ok=True)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [pool.submit(run_one, row, seed) for row, seed in missing]
        for future in tqdm(as_completed(futures), total=len(futures), unit="run", disable=not futures):
            future.result()
    results: Results = {
        name: {
            seed: json.loads(result_file(name, seed).read_text())
            for seed in range(row.seeds)
            if result_file(name, seed).exists()
        }
        for name, row in ROWS.items()
    }
    results = {row: by_seed for row, by_seed in results.items() if by_seed}
    (HERE / "README.md").write_text(page(results))
    plot(panels_of(results), results, HERE / "learning_curves.png")
    plot(off_policy_panels(results), results, HERE / "off_policy_curves.png")
    print(page(results))


if __name__ == "__main__":
    tyro.cli(main)
