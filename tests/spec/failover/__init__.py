"""The rules of the failover service, told as given facts, when wishes, then facts."""
