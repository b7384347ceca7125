"""Colours of the charts. Those that stand side by side differ for colour-blind eyes too; marks also differ in shape."""

FRONT_COLOUR, OTHER_COLOUR, REFERENCE_COLOUR, SELECTED_COLOUR = "#1d5fb4", "#aab3bd", "#c8443c", "#e69f00"
MIXER_COLOURS = {  # from Okabe and Ito's palette, with a brown and a violet
    "pool": "#56b4e9",
    "attention": "#d55e00",
    "spatial_mlp": "#009e73",
    "dwconv": "#f0c929",
    "identity": "#b8b8b8",
    "random": "#cc79a7",
    "token_mlp": "#0072b2",
    "sep_conv": "#6b3f2a",
    "reduced_attention": "#4b2e83",
}
