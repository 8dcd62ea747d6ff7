from hypothesis import given
from hypothesis import strategies as st

from selfsup.core import curves


def history(losses, **more):
    return [{"loss": loss, "lr": 1, **more} for loss in losses]


def test_what_curves_say():
    falls = [1 + 4 * 0.9**step for step in range(100)]
    assert curves.said(history(falls)) == ("learns", ["loss 4.28 at first, 1 at last"])
    verdict, figures = curves.said(history(falls, std=0.04, rank=1.3))
    assert verdict.startswith("collapsed") and figures[-1] == "spread of the embeddings 0.04 of 1, effective rank 1.3"
    assert curves.said(history(falls, std=0.9, rank=30.0))[0] == "learns"
    verdict, figures = curves.said(history([100 - step for step in range(100)]))
    assert "too little" in verdict and figures[-1] == "26 % of the fall in the last quarter"
    assert curves.said(history([4.84, *[4.83] * 99]))[0].startswith("hardly learns")
    assert curves.said(history([6 + step / 100 for step in range(100)]))[0].startswith("learns against")
    assert curves.said(history([1, 1])) is None and curves.said([{"val_loss": 1}] * 9) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=30))
def test_of_any_curve_there_is_a_verdict(losses):
    verdict, figures = curves.said(history(losses))
    assert verdict and all(figures)


def test_a_row_has_collapsed_by_its_spread_or_by_its_rank():
    assert curves.collapsed({"std": 0.01, "rank": 30}) and curves.collapsed({"std": 1.0, "rank": 1.1})
    assert not curves.collapsed({"std": 0.9, "rank": 30}) and not curves.collapsed({"loss": 1})
