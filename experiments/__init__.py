"""The paper's tables and figures, one script each; README.md says what each costs and gives."""
