"""Speed, measured: product and ceiling alternate in one run (`just bench`). Nothing here is a test; no test is
timed."""
