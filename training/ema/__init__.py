"""Post-hoc EMA (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", arXiv
2312.02696, section 3): averages kept while training, from which those of any other length follow afterwards."""
