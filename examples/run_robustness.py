"""
Measure how right classifiers stay under attack, with options of a YAML file: `rocbert evaluate` for experiments.

    python examples/run_robustness.py --config robustness --data-dir DATA
    python examples/run_robustness.py --model my-classifier --data reviews.tsv --limit 300 --output-dir robustness
"""

import sys
from pathlib import Path

from rocbert_hf.evaluation.run import OPTIONS, evaluate
from rocbert_hf.options import parse_options


def main(argv: list[str] | None = None) -> dict:
    options = parse_options(OPTIONS, argv, description=__doc__.strip().split("\n")[0])
    report = evaluate(*options)
    print(f"the report is in {options[-1].output_dir / 'report.html'}")
    return report


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; run it again to go on")
    except (ValueError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
