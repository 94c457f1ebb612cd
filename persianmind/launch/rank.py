"""What a launcher starts as each rank: `python -m persianmind.launch.rank --deepspeed ... --recipe ...`."""

from persianmind.common.log import mark_lines
from persianmind.report.page import write_report
from persianmind.train.command import main as train_main


def main() -> None:
    """`launcher/train.py` does the same."""
    mark_lines()
    train_main(write_report)


if __name__ == "__main__":
    main()
