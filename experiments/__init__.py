"""The paper's tables and figures, one script each; docs/tables.md says what each costs and gives."""
