"""archisync keeps PostgreSQL copies of ERP data fresh, and never harms them."""

__version__ = "1.0.0rc1"
