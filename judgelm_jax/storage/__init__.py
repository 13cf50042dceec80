"""Object stores: files by their URLs, flags that name them, and copies kept up to date while a run writes."""
