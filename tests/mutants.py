"""Defects that a test must see, as data: `plant.py` plants them, one by one, in a copy.

`test_mutants` checks in every run of the tests that all of them still apply. Some are known from
other packages: their numbers are those of `KNOWN`.
"""

from __future__ import annotations

from dataclasses import dataclass

REFERENCE = "kernels/vaekit_kernels/reference.py"


@dataclass(frozen=True)
class Edit:
    """A piece of a file, which occurs there once, and what takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A defect.

    Attributes:
        defect: what is wrong, in words.
        edits: what makes it so.
        tests: node ids, each of which must fail.
        known: number in `KNOWN`; 0 if it is our own.
    """

    defect: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    known: int = 0


# Defects found in other packages, and why some of them cannot happen here.
KNOWN = {
    1: "stratified-sampling weights off the diagonal: no minibatch estimate of q(z) here",
    2: "stratified-sampling weights in one of two sums: no minibatch estimate of q(z) here",
    3: "reshape for transpose",
    4: "scores of the mean where a sample is asked for",
    5: "permutation within a sample",
    6: "discriminator's loss reaches the encoder: no discriminator here",
    7: "the VAE's optimiser owns the discriminator: no discriminator here",
    8: "optimiser's step before the second backward: one backward a step here",
    9: "another KL weight in validation than in training",
    10: "the first batch's loss for the whole set's",
    11: "active units counted as the length of the mask",
    12: "KL logged with its sign flipped",
    13: "initial weights before the seed",
    14: "the best weights saved with the last optimiser: no best weights here",
    15: "bits for nats",
    16: "a test that swallows its assertions",
    17: "beta accepted and not used",
    18: "a prior of another variance",
}

_EVALUATE, _METRICS, _OBJECTIVE = "vaekit/evaluate.py", "vaekit/metrics.py", "vaekit/objective.py"
_CRITIC, _FRESH = "vaekit/estimators/critic.py", "vaekit/fresh.py"
_STUDY = "vaekit/study/"
_T = "tests/test_"

MUTANTS: dict[str, Mutant] = {
    "collapse-is-recovery": Mutant(
        "a code of inactive latents counts as recovery of the test grid",
        (
            Edit(
                _EVALUATE,
                "    kept = code * active[:, None]\n    _, recovered",
                "    kept = code\n    _, recovered",
            ),
            Edit(
                _EVALUATE,
                '"grid_recovery_r2": torch.where(active.any(-1), recovered, 0.0)',
                '"grid_recovery_r2": recovered',
            ),
        ),
        (_T + "evaluate.py::test_a_whisper_of_a_code_is_collapsed_too",),
    ),
    "collapse-is-ok": Mutant(
        "a model without an active unit has status ok",
        (Edit(_METRICS, '"collapsed" if units == 0', '"collapsed" if units < 0'),),
        (
            _T + "metrics.py::test_status",
            _T + "evaluate.py::test_a_collapsed_model_is_never_recovered",
        ),
    ),
    "collapse-has-r2-one": Mutant(
        "a target without variance is explained perfectly",
        (
            Edit(
                "vaekit/probe.py",
                "1.0 - error / spread.clamp(min=1e-300), 0.0)",
                "1.0 - error / spread.clamp(min=1e-300), 1.0)",
            ),
        ),
        (_T + "probe.py::test_predicting_a_code_of_zeros_looks_perfect_and_explains_nothing",),
    ),
    "collapse-has-information": Mutant(
        "inactive latents count among the canonical correlations",
        (
            Edit(
                _METRICS,
                "mask = kept.to(covariance.dtype)",
                "mask = torch.ones_like(kept, dtype=covariance.dtype)",
            ),
        ),
        (
            _T + "metrics.py::test_inactive_latents_do_not_count",
            _T + "evaluate.py::test_a_whisper_of_a_code_is_collapsed_too",
        ),
    ),
    "sampled-noise-is-activity": Mutant(
        "active units are those of the sampled code",
        (
            Edit(
                _FRESH,
                "code_variance=mean.double()",
                "code_variance=(torch.cat(code_all, dim=1) if code_all else mean).double()",
            ),
        ),
        (_T + "evaluate.py::test_a_collapsed_model_is_not_saved_by_sampling_its_code",),
    ),
    "kl-halved-in-training": Mutant(
        "the KL of the objective is half of itself",
        (Edit(REFERENCE, "0.5 * terms.sum(-1)", "0.25 * terms.sum(-1)"),),
        (
            _T + "reference.py::test_analytic_kl_is_its_closed_form",
            _T + "reference.py::test_sampled_kl_is_the_ratio_of_the_two_densities",
        ),
    ),
    "kl-halved-in-measuring": Mutant(
        "the KL that is reported is half of itself",
        (Edit(_METRICS, "return 0.5 * (mean.square()", "return 0.25 * (mean.square()"),),
        (_T + "metrics.py::test_kl_has_its_closed_form",),
    ),
    "loss-sums-over-samples": Mutant(
        "a sum over the batch for the mean",
        (Edit(_OBJECTIVE, "* kl).mean(dim=1))", "* kl).sum(dim=1))"),),
        (_T + "objective.py::test_the_loss_is_a_sum_over_models_of_means_over_samples",),
    ),
    "loss-averages-models": Mutant(
        "a mean over the stack for the sum: every gradient divided by M",
        (Edit(_OBJECTIVE, "return torch.sum((nll", "return torch.mean((nll"),),
        (_T + "objective.py::test_the_loss_is_a_sum_over_models_of_means_over_samples",),
    ),
    "nll-averages-pixels": Mutant(
        "a mean over pixels for the sum: beta grows by P / 2 in disguise",
        (Edit(REFERENCE, "(x - y).square().sum(-1)", "(x - y).square().mean(-1)"),),
        (_T + "reference.py::test_gaussian_nll_is_the_density",),
    ),
    "betas-share-noise": Mutant(
        "all betas of a seed see the same latent noise",
        (
            Edit(
                _OBJECTIVE, "normals(seeds, float_ids(beta), step", "normals(seeds, 0 * seeds, step"
            ),
        ),
        (_T + "objective.py::test_no_two_models_share_their_noise",),
    ),
    "measured-on-training-draws": Mutant(
        "the fresh draws are those of training",
        (
            Edit(
                "vaekit/data.py",
                '"evaluate": (Stream.EVALUATION_TRUTH, Stream.EVALUATION_NOISE)',
                '"evaluate": (Stream.IMAGE_TRUTH, Stream.IMAGE_NOISE)',
            ),
        ),
        (_T + "data.py::test_streams_steps_and_purposes_differ",),
    ),
    "probe-fitted-on-test-targets": Mutant(
        "the recovery probe is fitted on the draws that it is scored on",
        (
            Edit(
                _FRESH,
                "probe = fit_exact(code[:, :half], truth[:, :half])",
                "probe = fit_exact(code[:, half:], truth[:, half:])",
            ),
        ),
        (
            _T + "evaluate.py::"
            "test_noise_recovers_nothing_on_draws_that_the_probe_was_not_fitted_on",
        ),
    ),
    "critic-scored-on-training-draws": Mutant(
        "a critic proves its information on the draws that it was trained on",
        (
            Edit(
                _CRITIC,
                "held = slice(half, half + quarter), slice(half + quarter, half + 2 * quarter)",
                "held = slice(0, quarter), slice(quarter, 2 * quarter)",
            ),
        ),
        (_T + "estimators.py::test_a_critic_is_scored_on_draws_that_it_was_not_trained_on",),
    ),
    "truths-of-the-wrong-stream": Mutant(
        "streams and betas change places where truths are laid beside codes",
        (
            Edit(
                _FRESH,
                "flatten(0, 1)\n    truth = intensity(config, z)",
                "transpose(0, 1).flatten(0, 1)\n    truth = intensity(config, z)",
            ),
        ),
        (_T + "evaluate.py::test_a_perfect_model_scores_perfectly",),
        known=3,
    ),
    "sampling-switched-off": Mutant(
        "the probes read the mean although a sample is asked for",
        (
            Edit(
                _EVALUATE,
                'if config.code == "sample":\n        # Drawn',
                'if config.code == "never":\n        # Drawn',
            ),
        ),
        (_T + "evaluate.py::test_a_sampled_code_is_noisier_than_its_mean",),
        known=4,
    ),
    "permuted-within-a-sample": Mutant(
        "MINE's product of the marginals permutes columns, not rows",
        (Edit(_CRITIC, "c.roll(offset, dims=1)", "c.roll(offset, dims=2)"),),
        (_T + "estimators.py::test_a_known_channel_has_its_information[mine-a nat]",),
        known=5,
    ),
    "measured-at-another-beta": Mutant(
        "the objective that is reported has beta 1",
        (Edit(_EVALUATE, "draws.distortion + beta.double() * rate", "draws.distortion + rate"),),
        (_T + "evaluate.py::test_rate_distortion_and_objective_belong_together",),
        known=9,
    ),
    "first-batch-only": Mutant(
        "sums end after the first block of draws and are divided by all",
        (
            Edit(
                _FRESH,
                "            kl += metrics",
                "            if index:\n                continue\n            kl += metrics",
            ),
        ),
        (_T + "evaluate.py::test_rate_distortion_and_objective_belong_together",),
        known=10,
    ),
    "units-are-the-masks-length": Mutant(
        "active units are the number of latents",
        (
            Edit(
                _EVALUATE,
                "units = torch.where(finite, active.sum(-1), 0)",
                "units = torch.where(finite, active.shape[-1], 0)",
            ),
        ),
        (
            _T + "evaluate.py::test_a_collapsed_model_is_never_recovered",
            _T + "evaluate.py::test_a_perfect_model_scores_perfectly",
        ),
        known=11,
    ),
    "kl-with-flipped-sign": Mutant(
        "the KL that is reported is its negative",
        (Edit(_METRICS, "return 0.5 * (mean.square()", "return -0.5 * (mean.square()"),),
        (_T + "metrics.py::test_kl_has_its_closed_form",),
        known=12,
    ),
    "unseeded-weights": Mutant(
        "initial weights come from the process's generator",
        (
            Edit(
                "vaekit/model.py",
                "draw = uniforms(drawn, ids, 0, Stream.WEIGHT, fan_in + 1, fan_out)",
                "draw = torch.rand(len(drawn), fan_in + 1, fan_out)",
            ),
        ),
        (_T + "model.py::test_initial_weights_depend_on_the_seed_alone",),
        known=13,
    ),
    "information-in-bits": Mutant(
        "the code's information is in bits, beside a ceiling in nats",
        (
            Edit(
                _METRICS,
                "return -0.5 * torch.log1p(-correlations.square())",
                "return -0.5 / 0.6931471805599453 * torch.log1p(-correlations.square())",
            ),
        ),
        (_T + "metrics.py::test_a_gaussian_channel_has_its_known_information",),
        known=15,
    ),
    "ceiling-in-bits": Mutant(
        "the ceiling is in bits",
        (
            Edit(
                "vaekit/theory/ceiling.py",
                "factors * 0.5 * math.log1p(1.0 / noise**2)",
                "factors * 0.5 * math.log2(1.0 + 1.0 / noise**2)",
            ),
        ),
        (_T + "theory.py::test_the_ceiling_of_a_gaussian_channel_is_its_capacity",),
        known=15,
    ),
    "swallowed-assertion": Mutant(
        "a test catches its own assertions",
        (
            Edit(
                "tests/test_metrics.py",
                "    assert metrics.kl_per_latent(zero, zero).item() == 0.0\n",
                "    try:\n"
                "        assert metrics.kl_per_latent(zero, zero).item() == 1.0\n"
                "    except AssertionError:\n"
                "        pass\n",
            ),
        ),
        (_T + "house.py::test_the_sources_keep_the_rule[no assertion is swallowed]",),
        known=16,
    ),
    "beta-not-used": Mutant(
        "the loss has the KL without beta",
        (Edit(_OBJECTIVE, "(nll + beta[:, None] * kl)", "(nll + 0 * beta[:, None] + kl)"),),
        (_T + "objective.py::test_the_loss_is_a_sum_over_models_of_means_over_samples",),
        known=17,
    ),
    "prior-of-variance-e": Mutant(
        "the prior's log-variance is 1",
        (
            Edit(
                REFERENCE,
                "terms = mean.square() + torch.expm1(logvar) - logvar",
                "terms = mean.square() / math.e + torch.expm1(logvar - 1.0) - (logvar - 1.0)",
            ),
        ),
        (_T + "reference.py::test_analytic_kl_is_its_closed_form",),
        known=18,
    ),
    "probe-in-one-direction": Mutant(
        "both directions of the probe are truth to code",
        (Edit(_EVALUATE, "((truth, code), (code, truth))", "((truth, code), (truth, code))"),),
        (_T + "evaluate.py::test_the_untrained_baseline_is_the_posts",),
    ),
    "order-of-the-first-model": Mutant(
        "the Adam probe's order of rows hangs on the first model of the stack",
        (
            Edit(
                "vaekit/probe.py",
                "shared = seeds.new_zeros(1)\n        keys = uniforms(shared, shared,",
                "shared = seeds.new_zeros(1)\n        keys = uniforms(seeds[:1], shared,",
            ),
        ),
        (_T + "probe.py::test_adam_does_not_see_the_seeds_of_the_neighbours",),
    ),
    "neighbour-counts-itself": Mutant(
        "KSG counts the k-th neighbour among those that are nearer",
        (
            Edit(
                "vaekit/estimators/neighbours.py",
                "within = np.nextafter(distance, 0.0)",
                "within = np.nextafter(distance, 1e9)",
            ),
        ),
        (_T + "estimators.py::test_ksg_is_its_formula",),
    ),
    "every-estimate-is-supported": Mutant(
        "what the draws cannot support passes as evidence",
        (
            Edit(
                "vaekit/estimators/__init__.py",
                "return most[name] - MARGIN",
                "return most[name] + math.inf",
            ),
        ),
        (_T + "estimators.py::test_more_than_the_draws_support_says_so",),
    ),
    "ksg-believed-at-its-largest": Mutant(
        "KSG is believed up to the most that it can give, however much there is",
        (
            Edit(
                "vaekit/estimators/__init__.py",
                "largest(near)",
                "MARGIN + largest(near)",
            ),
        ),
        (
            _T + "estimators.py::"
            "test_ksg_gives_no_more_than_its_largest_and_is_not_believed_near_it",
        ),
    ),
    "ksg-believed-in-any-dimension": Mutant(
        "KSG is believed where its neighbours are no nearer than everything else",
        (Edit("vaekit/estimators/__init__.py", "RESOLUTION = 2.5", "RESOLUTION = 1.0"),),
        (_T + "estimators.py::test_ksg_is_not_believed_where_its_neighbours_are_none",),
    ),
    "gaussian-measure-of-noise": Mutant(
        "the Gaussian measure shows F L / (2 N) nats between independent vectors",
        (
            Edit(
                "vaekit/estimators/__init__.py",
                "return shown - gaussian_bias",
                "return shown - 0.0 * gaussian_bias",
            ),
        ),
        (_T + "estimators.py::test_the_gaussian_measure_of_nothing_is_nothing_on_average",),
    ),
    "ceiling-of-a-narrow-channel": Mutant(
        "noise counts as narrow beside intensities that spread by less",
        (Edit("vaekit/theory/ceiling.py", "SMOOTH = 0.1", "SMOOTH = 10.0"),),
        (_T + "theory.py::test_the_ceiling_far_out_on_the_sigmoid[8.0-0.0005]",),
    ),
    "gap-of-noise-is-a-score": Mutant(
        "the information gap of noise counts, over a ceiling that is smaller than it",
        (Edit("vaekit/axis_scores.py", "MIG_ERRORS = 4.0", "MIG_ERRORS = 0.0"),),
        (_T + "axis_scores.py::test_noise_scores_nothing_where_images_hold_next_to_nothing",),
    ),
    "variance-as-deviation": Mutant(
        "the pixel noise's variance is taken for its standard deviation",
        (Edit(REFERENCE, "alpha=math.sqrt(noise_variance)", "alpha=noise_variance"),),
        (
            _T + "reference.py::test_images_have_the_mean_and_the_noise_that_the_model_says",
            _T + "data.py::test_images_are_the_rendered_truth_and_white_noise",
        ),
    ),
    "aggregate-without-posteriors": Mutant(
        "the aggregate posterior is that of the means alone",
        (
            Edit(
                _EVALUATE,
                "aggregate.covariance + torch.diag_embed(draws.variance)",
                "aggregate.covariance + 1e-9 * torch.diag_embed(draws.variance)",
            ),
        ),
        (_T + "evaluate.py::test_the_rate_is_information_and_the_aggregates_kl",),
    ),
    "selectivity-at-another-mu": Mutant(
        "untrained networks are measured on another mu's draws",
        (
            Edit(
                _FRESH,
                "stream = torch.tensor([mu], device=device)",
                "stream = torch.tensor([0.0 * mu], device=device)",
            ),
        ),
        (_T + "evaluate.py::test_the_untrained_recover_less_the_more_the_data_are_biased",),
    ),
    "selectivity-of-the-mean": Mutant(
        "untrained networks are read by their mean where trained ones are by samples",
        (
            Edit(
                _FRESH,
                'if config.code == "sample":\n            ids',
                'if config.code == "never":\n            ids',
            ),
        ),
        (_T + "evaluate.py::test_the_untrained_are_read_by_samples_where_the_trained_are",),
    ),
    "selectivity-on-more-draws": Mutant(
        "a trained model's probe is fitted on more draws than the untrained networks' it is "
        "compared with",
        (Edit(_FRESH, '("recovery_r2_few", BASELINE_DRAWS)', '("recovery_r2_few", 10**9)'),),
        (_T + "evaluate.py::test_the_untrained_recover_less_the_more_the_data_are_biased",),
    ),
    "bernoulli-with-a-kink-at-zero": Mutant(
        "the Bernoulli definition has a slope of 1 where the output is 0",
        (
            Edit(
                "kernels/vaekit_kernels/reference.py",
                "(-torch.nn.functional.logsigmoid(-a) - a * x)",
                "(a.clamp(min=0.0) + torch.log1p(torch.exp(-a.abs())) - a * x)",
            ),
        ),
        (_T + "reference.py::test_the_slope_of_the_bernoulli_nll_has_no_kink_at_zero",),
    ),
    "bernoulli-boundary-at-the-gaussians": Mutant(
        "the Bernoulli boundary has the Fisher information of the decoder's variance",
        (
            Edit(
                "vaekit/theory/critical.py",
                "mean * (1 - mean), np.nan)",
                "decoder_variance, np.nan)",
            ),
        ),
        (_T + "theory.py::test_critical_beta_of_the_bernoulli_likelihood",),
    ),
    "learned-variance-without-beta": Mutant(
        "the learned decoder variance is that of a plain VAE at every beta",
        (
            Edit(
                "vaekit/theory/linear.py",
                "degrees = len(spectrum) - active * beta",
                "degrees = len(spectrum) - active",
            ),
        ),
        (_T + "theory.py::test_a_learned_variance_is_the_best_fixed_one",),
    ),
    "boundary-without-the-noise": Mutant(
        "the critical beta leaves out the pixels' noise",
        (
            Edit(
                "vaekit/theory/critical.py",
                "critical = (signal + noise_variance) / pixel",
                "critical = signal / pixel",
            ),
        ),
        (_T + "theory.py::test_critical_beta_has_the_known_values",),
    ),
    "water-level-without-beta": Mutant(
        "the oracle's water level is the decoder's variance alone",
        (
            Edit(
                "vaekit/theory/linear.py",
                "    water = beta * decoder_variance\n    active = ",
                "    water = decoder_variance\n    active = ",
            ),
        ),
        (_T + "theory.py::test_the_optimum_cannot_be_improved[2.5]",),
    ),
    "step-halves-the-kls-gradient": Mutant(
        "the written-out step takes half of the KL's gradient by the mean",
        (
            Edit(
                "vaekit/step.py",
                "torch.addcmul(grad_z, weight, mean, out=grad_mean)",
                "torch.addcmul(grad_z, 0.5 * weight, mean, out=grad_mean)",
            ),
        ),
        (_T + "step.py::test_gradients_are_those_of_autograd[default-torch]",),
    ),
    "part-has-anothers-models": Mutant(
        "a part of a stack trains models of another part's streams",
        (
            Edit(
                "vaekit/parts.py",
                "slice(part.start * share, part.stop * share)",
                "slice(part.start, part.stop)",
            ),
        ),
        (_T + "parts.py::test_every_stream_and_model_is_in_one_part_with_its_own[4-3]",),
    ),
    "compiled-step-halves-the-kls-gradient": Mutant(
        "the compiled step takes half of the KL's gradient by the mean",
        (
            Edit(
                "vaekit/compiled_step.py",
                "grad_mean = grad_z + weight * mean",
                "grad_mean = grad_z + 0.5 * weight * mean",
            ),
        ),
        (_T + "step.py::test_gradients_are_those_of_autograd[default-compiled]",),
    ),
    "compiled-step-forgets-a-relu": Mutant(
        "the compiled step passes gradients on to hidden units that are off",
        (
            Edit(
                "vaekit/compiled_step.py",
                "grad = torch.where(given <= 0.0, 0.0, grad)",
                "grad = torch.where(given < 0.0, 0.0, grad)",
            ),
        ),
        (_T + "step.py::test_gradients_are_those_of_autograd[default-compiled]",),
    ),
    "step-sums-over-samples": Mutant(
        "the written-out step sums the reconstruction's gradient over the batch",
        (
            Edit(
                "vaekit/step.py",
                "scale = 1.0 / (variance * batch)",
                "scale = 1.0 / variance",
            ),
        ),
        (_T + "step.py::test_gradients_are_those_of_autograd[default-torch]",),
    ),
    "step-sums-the-kls-gradient": Mutant(
        "the written-out step sums the KL's gradient over the batch",
        (
            Edit(
                "vaekit/step.py",
                "weight = (beta / mean.shape[1])[",
                "weight = (1.0 * beta)[",
            ),
        ),
        (_T + "step.py::test_gradients_are_those_of_autograd[default-torch]",),
    ),
    "step-without-beta": Mutant(
        "the written-out step trains every model at beta = 1",
        (
            Edit(
                "vaekit/step.py",
                "weight = (beta / mean.shape[1])[",
                "weight = (beta**0 / mean.shape[1])[",
            ),
        ),
        (_T + "step.py::test_gradients_are_those_of_autograd[default-torch]",),
    ),
    "step-without-the-decoders-variance": Mutant(
        "the written-out step has a decoder variance of 1, whatever is asked for",
        (
            Edit(
                "vaekit/step.py",
                'variance = 1.0 if config.likelihood == "bernoulli" else config.decoder_variance',
                "variance = 1.0",
            ),
        ),
        (_T + "step.py::test_gradients_are_those_of_autograd[decoder-variance-torch]",),
    ),
    "step-averages-pixels": Mutant(
        "the written-out step averages the reconstruction over pixels",
        (
            Edit(
                "vaekit/step.py",
                "scale = 1.0 / (variance * batch)",
                "scale = 1.0 / (variance * batch * pixels)",
            ),
        ),
        (_T + "step.py::test_gradients_are_those_of_autograd[default-torch]",),
    ),
    "step-halves-the-kl": Mutant(
        "the written-out step reports half of the analytic KL",
        (
            Edit(
                "vaekit/step.py",
                "kl = 0.5 * (mean.square() + excess",
                "kl = 0.25 * (mean.square() + excess",
            ),
        ),
        (_T + "step.py::test_gradients_are_those_of_autograd[default-torch]",),
    ),
    "step-halves-the-sampled-kl": Mutant(
        "the written-out step reports half of the one-sample KL",
        (
            Edit(
                "vaekit/step.py",
                "kl = 0.5 * (z.square()",
                "kl = 0.25 * (z.square()",
            ),
        ),
        (_T + "step.py::test_gradients_are_those_of_autograd[sampled-kl-torch]",),
    ),
    "adam-never-counts": Mutant(
        "Adam's bias correction is that of the first step for ever",
        (Edit("vaekit/adam.py", "        state.steps.add_(1)\n", ""),),
        (
            _T + "step.py::test_the_update_is_the_one_of_torch_optim",
            _T + "step.py::test_one_engine_continues_where_another_stopped",
        ),
    ),
    "stopped-models-train-on": Mutant(
        "a model that was stopped is updated with its neighbours",
        (Edit("vaekit/adam.py", "if step])", "if step < 0])"),),
        (
            _T + "step.py::test_a_stopped_model_keeps_every_bit_and_its_siblings_train_on",
            _T + "step.py::test_a_model_that_is_not_finite_is_stopped_before_its_update[nan-torch]",
        ),
    ),
    "weights-gradients-unseen": Mutant(
        "a model is judged by its biases' gradients alone",
        (
            Edit(
                "vaekit/adam.py",
                "chain.from_iterable(gradients)",
                "(bias for _, bias in gradients)",
            ),
        ),
        (
            _T
            + "step.py::test_a_weight_gradient_that_overflows_alone_stops_its_model[1e+22-torch]",
            _T
            + "step.py::test_a_weight_gradient_that_overflows_alone_stops_its_model[1e+38-torch]",
        ),
    ),
    "resumed-without-moments": Mutant(
        "a run that goes on begins with Adam's moments at zero",
        (
            Edit(
                "vaekit/train.py",
                "    state.load(state.tensors() | tensors)\n",
                "    state.load(state.tensors() | tensors)\n    state.exp_avg.zero_()\n",
            ),
        ),
        (_T + "resume.py::test_a_run_that_was_asked_to_leave_goes_on_to_the_same_bits[4]",),
    ),
    "last-checkpoint-with-moments": Mutant(
        "the last checkpoint of a training holds what nobody goes on with",
        (
            Edit(
                "vaekit/train.py",
                "if step < config.steps or name not in MOMENTS]",
                "]",
            ),
        ),
        (_T + "resume.py::test_a_divergence_from_before_is_a_failure_too[trained]",),
    ),
    "resumed-without-its-window": Mutant(
        "a run that goes on forgets the losses of the window it was in",
        (
            Edit(
                "vaekit/train.py",
                'window.copy_(tensors.pop("window"))',
                'tensors.pop("window")',
            ),
        ),
        (_T + "resume.py::test_a_run_that_was_asked_to_leave_goes_on_to_the_same_bits[4]",),
    ),
    "checkpoint-of-any-run": Mutant(
        "a checkpoint of another configuration is taken up",
        (Edit("vaekit/checkpoint.py", "if manifest.about != dict(about):", "if False:"),),
        (_T + "checkpoint.py::test_a_checkpoint_of_another_run_is_not_taken",),
    ),
    "checksum-not-compared": Mutant(
        "damaged tensors are taken up",
        (
            Edit(
                "vaekit/checkpoint.py",
                "if hashlib.sha256(content).hexdigest() != manifest.sha256:",
                "if False:",
            ),
        ),
        (_T + "checkpoint.py::test_two_hundred_of_two_hundred_bit_flips_are_seen",),
    ),
    "diagonal-along-one-axis": Mutant(
        "level sets are diagonal where a map rises along one axis and falls along the other",
        (
            Edit(
                _STUDY + "claims.py",
                "np.sign(along_mu * along_beta) * min(",
                "np.abs(np.sign(along_mu * along_beta)) * min(",
            ),
        ),
        (
            _T + "study_claims.py::test_diagonality_is_the_weaker_trend_with_the_sign_of_both",
            _T + "study_claims.py::test_the_decoders_level_sets_are_those_of_each_fit",
        ),
    ),
    "diagonal-by-the-stronger-trend": Mutant(
        "a map that moves along one axis alone has diagonal level sets",
        (
            Edit(
                _STUDY + "claims.py",
                "min(abs(along_mu), abs(along_beta))",
                "max(abs(along_mu), abs(along_beta))",
            ),
            Edit(_STUDY + "claims.py", "np.sign(along_mu * along_beta)", "1.0"),
        ),
        (_T + "study_claims.py::test_diagonality_is_the_weaker_trend_with_the_sign_of_both",),
    ),
    "boundary-from-the-first-death": Mutant(
        "a column collapses where any of its betas did, not from where on all did",
        (
            Edit(
                _STUDY + "statistics.py",
                "dead = np.cumprod((units == 0)[..., ::-1], axis=-1).sum(-1)",
                "dead = (units == 0).sum(-1)",
            ),
        ),
        (_T + "study.py::test_a_column_collapses_from_where_on_all_of_it_did",),
    ),
    "boundary-beyond-the-grid-agrees": Mutant(
        "a boundary that the grid of beta does not reach counts as found",
        (
            Edit(
                _STUDY + "statistics.py",
                "np.where(gone | ~seen, np.nan, steps)",
                "np.where(gone | ~(critical > 0), np.nan, steps)",
            ),
        ),
        (_T + "study.py::test_a_column_whose_boundary_is_beyond_the_grid_of_beta_says_nothing",),
    ),
    "pairs-of-other-seeds": Mutant(
        "a difference between two arms is taken between different seeds",
        (
            Edit(
                _STUDY + "pairs.py",
                "zip(planes(first, score), planes(second, score), strict=True)",
                "zip(planes(first, score), planes(second, score)[::-1], strict=True)",
            ),
        ),
        (_T + "study_answer.py::test_paired_changes_are_of_the_same_cells",),
    ),
    "diverged-counts-as-a-change": Mutant(
        "a cell where one of two models diverged counts in their difference",
        (
            Edit(
                _STUDY + "claims.py",
                'kept = values(dataset).where(dataset["status"] != "diverged")',
                "kept = values(dataset)",
            ),
        ),
        (_T + "study_answer.py::test_a_cell_that_diverged_is_in_no_paired_change",),
    ),
    "curves-of-what-diverged": Mutant(
        "the windows of a diverged seed are averaged into the training curves",
        (
            Edit(
                "vaekit/figures/curves.py",
                "curves = converged(chosen, chosen[name]).transpose",
                "curves = chosen[name].transpose",
            ),
        ),
        (_T + "figures.py::test_lines_leave_out_what_diverged_and_say_so",),
    ),
    "one-seed-concludes": Mutant(
        "a study of one seed draws a conclusion on the inverse relation",
        (Edit(_STUDY + "inverse.py", 'if "one seed" in every[RAW]:', "if False:"),),
        (_T + "study_answer.py::test_one_seed_concludes_nothing_of_the_inverse_relation",),
    ),
    "collapse-ranked-by-its-constancy": Mutant(
        "a constant code's error over its variance ranks it, by how constant it is",
        (Edit(_STUDY + "inverse.py", ".clip(min=0.0)", ""),),
        (_T + "study_answer.py::test_how_constant_a_collapsed_code_is_has_no_rank",),
    ),
    "agreement-without-its-caveat": Mutant(
        "an agreement of two maps that collapse alone makes is said of all models",
        (Edit(_STUDY + "inverse.py", 'if size and not most(alive, "holds"):', "if False:"),),
        (_T + "study_answer.py::test_an_agreement_that_is_collapses_says_so",),
    ),
    "trainings-collapse-is-the-objectives": Mutant(
        "models that collapsed above the critical beta count as training's doing",
        (
            Edit(
                _STUDY + "bias.py",
                'below = (dataset["beta"] < dataset["critical_beta"])',
                'below = (dataset["beta"] > dataset["critical_beta"])',
            ),
        ),
        (_T + "study_answer.py::test_what_collapsed_below_the_boundary_is_said_to_be_trainings",),
    ),
    "dead-models-speak-of-bias": Mutant(
        "what collapsed counts in how far recovery falls with mu",
        (
            Edit(
                _STUDY + "bias.py",
                'kept = dataset["recovery_r2"].where(dataset["status"] == "ok")',
                'kept = dataset["recovery_r2"].where(dataset["status"] != "diverged")',
            ),
        ),
        (_T + "study_answer.py::test_dead_models_are_in_no_mean_of_bias_or_noise",),
    ),
    "bound-within-a-step-agrees": Mutant(
        "a column that is dead at every beta lies within one step of where theory kills the second",
        (
            Edit(
                _STUDY + "boundary.py",
                "np.where(bounded(dataset), np.nan, boundary_steps(dataset))",
                "boundary_steps(dataset)",
            ),
        ),
        (_T + "study.py::test_a_bound_within_a_step_is_no_boundary_within_a_step",),
    ),
    "map-of-collapsed-models-concludes": Mutant(
        "a map in which next to no model lives decides a claim on recovery",
        (Edit(_STUDY + "claims.py", 'few = living < FEW * dataset.sizes["seed"]', "few = False"),),
        (_T + "study_claims.py::test_a_map_of_collapsed_models_is_called_one",),
    ),
    "residue-decides": Mutant(
        "ranks that cancel but for rounding reverse a claim",
        (Edit(_STUDY + "claims.py", "PLACES = 9", "PLACES = 99"),),
        (_T + "study_claims.py::test_a_statistic_that_is_nothing_but_residue_is_open",),
    ),
    "next-to-nothing-is-a-correlation": Mutant(
        "a rank correlation of 0.05 is a verdict",
        (Edit(_STUDY + "claims.py", "NOTHING = 0.1", "NOTHING = 0.0"),),
        (
            _T + "study_claims.py::test_a_statistic_that_is_nothing_but_residue_is_open",
            _T + "study_answer.py::test_a_correlation_next_to_nothing_is_open",
        ),
    ),
    "diverged-seed-has-no-trend": Mutant(
        "a seed whose models all diverged enters a statistic as 0",
        (
            Edit(
                _STUDY + "statistics.py",
                'if known.sum() < 2:\n        return float("nan")',
                "if known.sum() < 2:\n        return 0.0",
            ),
        ),
        (
            _T + "study.py::test_what_has_fewer_than_two_cells_agrees_with_nothing",
            _T + "study_claims.py::test_a_seed_whose_models_all_diverged_is_left_out",
        ),
    ),
    "cells-of-other-seeds": Mutant(
        "the difference between two arms in cells.csv is taken between different seeds",
        (
            Edit(
                _STUDY + "page.py",
                "interval((values - base[measure]).values)",
                "interval(values.values - base[measure].values[..., ::-1])",
            ),
        ),
        (_T + "study.py::test_the_cells_file_holds_means_differences_and_how_models_ended",),
    ),
    "cells-interval-upside-down": Mutant(
        "the ends of the intervals in cells.csv have changed places",
        (
            Edit(
                _STUDY + "page.py",
                "ends = [found.mean[i, k], found.low[i, k], found.high[i, k]]",
                "ends = [found.mean[i, k], found.high[i, k], found.low[i, k]]",
            ),
        ),
        (_T + "study.py::test_the_cells_file_holds_means_differences_and_how_models_ended",),
    ),
    "cells-hide-what-diverged": Mutant(
        "cells.csv averages a model that diverged",
        (
            Edit(
                _STUDY + "page.py",
                'alive = dataset["status"] != "diverged"',
                'alive = dataset["status"] != "no such status"',
            ),
        ),
        (_T + "study.py::test_the_cells_file_holds_means_differences_and_how_models_ended",),
    ),
    "capture-on-the-first-card": Mutant(
        "a block of a second card is captured on the first one's stream, and is empty",
        (
            Edit(
                "vaekit/block.py",
                "                stream=torch.cuda.Stream(self.device),\n",
                "                stream=torch.cuda.Stream(torch.device('cuda', 0)),\n",
            ),
        ),
        (_T + "engine.py::test_a_block_is_captured_on_the_device_that_trains",),
    ),
    "offsets-beyond-32-bits": Mutant(
        "the Triton engine takes layers that its kernels cannot address",
        (Edit("vaekit/engine.py", "        _check_offsets(config)\n", "        pass\n"),),
        (
            _T + "engine.py::test_what_kernels_cannot_address_is_refused[weights]",
            _T + "engine.py::test_what_kernels_cannot_address_is_refused[batch]",
        ),
    ),
    "checkpoints-take-no-memory": Mutant(
        "a stack on a CPU is sized as if its checkpoints took nothing",
        (Edit("vaekit/stack.py", "        each += checkpoint_bytes(config)\n", "        pass\n"),),
        (_T + "train.py::test_the_stack_size_obeys_the_user_and_the_memory",),
    ),
    "every-piece-is-the-first": Mutant(
        "a CPU that draws in pieces draws the first one again and again",
        (
            Edit(
                "kernels/vaekit_kernels/philox.py",
                "keys[:, first : first + piece]",
                "keys[:, : min(piece, len(seeds) - first)]",
            ),
        ),
        (_T + "philox.py::test_what_is_drawn_in_pieces_is_what_is_drawn_at_once",),
    ),
    "images-take-no-memory": Mutant(
        "a stack is sized as if its streams' images took nothing",
        (
            Edit(
                "vaekit/stack.py",
                " + len(stack.mu) * stream_bytes(config)",
                "",
            ),
        ),
        (_T + "memory.py::test_training_takes_no_more_than_is_planned[beta0-90]",),
    ),
    "freed-memory-is-given-back": Mutant(
        "the C library never learns to keep what is freed",
        (Edit("vaekit/host.py", "bytearray(LARGEST_KEPT)", "bytearray(1)"),),
        (_T + "host.py::test_freed_memory_is_kept_for_what_comes_next[kept-0]",),
    ),
    "share-of-another-peak": Mutant(
        "every row's share of the peak is of float32 products, whatever it multiplies in",
        (
            Edit(
                "bench/tables.py",
                'products_of(name, problem["precision"])',
                '"float32"',
            ),
        ),
        (_T + "bench_report.py::test_a_share_of_the_peak_is_of_a_rows_own_precision",),
    ),
    "ahead-within-its-noise": Mutant(
        "an engine is said to be ahead by less than it differs from itself",
        (Edit("bench/report.py", "low > max(1.0, same_high)", "low > 1.0"),),
        (_T + "bench_report.py::test_an_engine_is_ahead_where_its_own_noise_does_not_reach",),
    ),
}


def mutate(text: str, edit: Edit) -> str:
    """Apply an edit to a file's text.

    Raises:
        ValueError: what it replaces is not there exactly once.
    """
    if text.count(edit.old) != 1:
        raise ValueError(
            f"{edit.file}: {edit.old!r} occurs {text.count(edit.old)} times; allowed: once"
        )
    return text.replace(edit.old, edit.new)
