"""Which answers came of which variant, and what became of them: attributions, feedback, figures per variant."""
