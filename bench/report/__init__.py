"""From records to tables. Never imports torch: a report is made on any machine."""
