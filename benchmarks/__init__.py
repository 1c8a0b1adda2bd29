"""What measures speed. Each module has ``main()`` and prints ratios against something in the same run."""
