import pytest
import torch
from helpers import random_widths, small_vit, source_for

from vitrim.calibration.units.finetune import finetune
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.load import fingerprint
from vitrim.exporter.pruning.slim import slim


def parts(labelled=True):
    dense = small_vit()
    return dense, slim(dense, random_widths(dense, 2)), source_for(dense, 16, labelled)


class StopError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [True, False])
def test_a_stopped_run_goes_on_where_it_was(tmp_path, labelled):
    dense, narrow, source = parts(labelled)
    losses = finetune(dense, narrow, source, tmp_path / "whole.pt", epochs=4, batch=8, lr=1e-3)
    assert len(losses) == 4
    assert losses[-1] < losses[0]

    def stop(done, total):
        if done == 5:  # within the third epoch
            raise StopError

    _, again, _ = parts(labelled)
    with pytest.raises(StopError):
        finetune(dense, again, source, tmp_path / "part.pt", epochs=4, batch=8, lr=1e-3, progress=stop)
    _, resumed, _ = parts(labelled)
    steps = []
    told = finetune(
        dense, resumed, source, tmp_path / "part.pt", epochs=4, batch=8, lr=1e-3,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps == [(5, 8), (6, 8), (7, 8), (8, 8)]
    assert told == losses
    assert fingerprint(resumed) == fingerprint(narrow)
    assert not any(parameter.requires_grad for parameter in resumed.parameters())


def test_the_teacher_is_not_trained(tmp_path):
    dense, narrow, source = parts()
    before = fingerprint(dense)
    finetune(dense, narrow, source, tmp_path / "c.pt", epochs=1)
    assert fingerprint(dense) == before


def test_a_torn_checkpoint_is_named(tmp_path):
    dense, narrow, source = parts()
    (tmp_path / "c.pt").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"c\.pt cannot be resumed from .*remove it to start anew"):
        finetune(dense, narrow, source, tmp_path / "c.pt", epochs=1)
    assert torch.is_grad_enabled()
