"""The rules of the warm pool service, told as given facts, when wishes, then facts."""
