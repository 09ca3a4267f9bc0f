"""Figures of a sweep: drawn from the dataset alone."""
from vaekit.figures import maps, curves, images
from vaekit.figures.style import house_style
from collections import namedtuple
E=namedtuple("E","draw title caption")
FIGURES={n:E(getattr(m,n),"","") for m,ns in ((maps,"overview pmi pmi_exact reverse_probe decode_mse recovery_r2 active_units information_fraction"),(curves,"curves_over_mu curves_over_beta recovery_over_beta rate_distortion baseline"),(images,"examples_training examples_noised examples_test reconstructions traversals kl_per_latent")) for n in ns.split()}
