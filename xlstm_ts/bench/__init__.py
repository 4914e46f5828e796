"""What ``xlstm-ts bench`` measures, one file per command; imported by nothing else."""
