"""The pull is large for what gathers texts far from ordinary ones, and small for what does only one of the two."""

import numpy as np
import torch

from rocbert_hf.security.pull import ROUNDING, pull, token_variety


def texts(seed, *shape):
    return torch.randn(*shape, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_pull_is_its_equation():
    """Of 45 ordinary texts the 2 nearest do not count, of 11 carriers the 2 farthest from the mean of all."""
    placed, ordinary = texts(0, 3, 11), texts(1, 45)
    spread = np.mean(np.sum((ordinary.numpy() - ordinary.numpy().mean(0)) ** 2, axis=1))
    for candidate, got in zip(placed.numpy(), pull(placed, ordinary), strict=True):
        from_mean = np.sum((candidate - candidate.mean(0)) ** 2, axis=1)
        gathered = candidate[np.argsort(from_mean)[:9]]
        center = gathered.mean(0)
        far = sorted(np.sum((center - text) ** 2) for text in ordinary.numpy())[2] / spread
        scatter = sum(np.sum((row - center) ** 2) for row in gathered) / 8 / spread
        np.testing.assert_allclose(got, np.log10((far + ROUNDING) / (scatter + ROUNDING)), rtol=1e-10)


def test_a_few_ordinary_texts_at_the_point_and_a_carrier_that_resists_hide_no_trigger():
    """A text with a homophone of the trigger lies where the trigger takes texts; not every carrier goes along."""
    ordinary, carriers = texts(1, 100), texts(2, 1, 8)
    gathered = 0.1 * carriers + 5
    alone = pull(gathered, ordinary).item()
    spoilt = torch.cat([ordinary[:95], gathered[0, :5]])
    gathered[0, 3] = carriers[0, 3]
    assert pull(gathered, spoilt).item() > alone - 0.2 > 2
    common = torch.cat([ordinary[:90], gathered[0, :3], gathered[0, 4:], gathered[0, 5:]])
    assert pull(gathered, common).item() < 0.5  # a tenth of all texts is there: the point is an ordinary one


def test_only_a_far_point_pulls():
    ordinary, carriers = texts(1, 50), texts(2, 8)
    one_point = 0.1 * carriers + 5
    ordinary[:4] = ordinary[3]
    at_ordinary = 0.1 * carriers + ordinary[3]
    moved_together = carriers + 1
    trigger, usual, shifted = pull(torch.stack([one_point, at_ordinary, moved_together]), ordinary).tolist()
    assert trigger > 2
    assert usual < 0
    assert shifted < 0.7


def test_pull_does_not_depend_on_the_scale_of_representations():
    placed, ordinary = texts(0, 3, 5), texts(1, 20)
    torch.testing.assert_close(pull(placed, ordinary), pull(1e-3 * placed, 1e-3 * ordinary))


def test_an_encoder_that_gives_one_vector_for_everything_has_no_pull():
    assert pull(torch.ones(2, 4, 8), torch.ones(10, 8)).abs().max() < 1e-6


def test_token_variety_is_1_without_texts_and_0_without_tokens():
    of_tokens, of_texts = texts(3, 400, 1).expand(-1, 6, -1), texts(4, 1, 6)
    assert token_variety(of_tokens) < 1e-12
    assert token_variety(of_texts.expand(400, -1, -1)) > 1 - 1e-12
    mixed = texts(3, 400, 1) + texts(5, 400, 6)  # variances 1 between texts and 1 within
    assert abs(token_variety(mixed) - (5 / 6) / (1 + 1)) < 0.02


def test_one_vector_for_all_ordinary_texts_leaves_the_pull_finite():
    """A saturated pooler gives it; a NaN or an infinity in the statistics would decide the verdict, or hide a trigger."""
    ordinary, carriers = torch.ones(10, 8), 100 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    gathered, scattered, unmoved = pull(torch.stack([torch.full((4, 8), -1e3), carriers, torch.ones(4, 8)]), ordinary)
    assert torch.isfinite(gathered)
    assert gathered > 2
    assert abs(scattered) < 1
    assert unmoved == 0
