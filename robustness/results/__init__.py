"""Results: rows of figures as files, and the tables, plots and pages made from them."""
