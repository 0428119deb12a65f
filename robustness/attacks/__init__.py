"""Attacks, each pinned to its paper and to the settings of the NRP paper's Appendix F."""
