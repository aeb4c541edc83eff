"""archisync keeps PostgreSQL copies of ERP data fresh, and never harms them."""

__version__ = "0.1.0"
