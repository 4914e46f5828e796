"""Where networks and data meet: batches, the loop, calibration."""
