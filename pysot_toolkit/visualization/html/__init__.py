"""What the HTML report is made of: its style, its script, and how text becomes markup."""
