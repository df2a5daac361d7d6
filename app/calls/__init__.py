"""Paid calls: journalled before they are sent, sent once, followed to their end."""
