"""One claim alone, for the tests of this folder."""

import pandas as pd
import pytest

from pag.report import judgement


def judge_one(number: int, scores: pd.DataFrame) -> list[judgement.Finding]:
    """What `judge` finds for one claim: the other nine take most of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judgement, "CLAIMS", [claim for claim in judgement.CLAIMS if claim.number == number])
        return judgement.judge(scores)
