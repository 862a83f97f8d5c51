"""A converted diffusion model is one that predicts noise, or is refused."""

import math
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from pag.foundation.config.section import ConfigError
from stages import train_diffusion


@pytest.mark.parametrize(("error", "refused"), [(0.999, False), (1.0, True), (1.29, True), (math.nan, True)])
def test_a_network_that_predicts_no_noise_is_refused(
    error: float, refused: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, found in (("convert", {}), ("assemble", None), ("judge", error)):
        monkeypatch.setattr(train_diffusion, name, lambda *_, found=found: found)
    images: Any = SimpleNamespace(name="digits", num_classes=10, image_shape=(1, 8, 8))
    nothing: Any = None
    with pytest.raises(ConfigError, match="predicting nothing has 1") if refused else nullcontext():
        train_diffusion.converted(images, nothing, 0, nothing)
    assert ("squared error of the noise 0.9990" in capsys.readouterr().out) is not refused
