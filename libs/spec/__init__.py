"""What is used to prove the platform: conformance suites of its ports, and given/when/then for its deciders.

Called by tests only. Owns no behaviour of the product.
"""
