"""Export trained models for other programs; a file is written only if its outputs agree with the model."""
