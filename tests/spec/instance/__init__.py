"""The rules of the instance service, told as given facts, when wishes, then facts."""
