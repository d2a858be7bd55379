"""What a study leaves behind: Parquet tables, queries over them, statistics and result tables.

Knows nothing of Ray or torch. `schema` says what the tables are, `store` writes them, `query` finds and reads them,
`statistics` judges numbers over seeds, `tables` makes the tables that a person reads.
"""
