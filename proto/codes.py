"""Every refusal code once. (seam: the gateway's owner fills this table)"""
