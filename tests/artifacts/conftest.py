from tests.artifacts.servers import s3

__all__ = ["s3"]
