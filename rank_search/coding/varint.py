"""Small whole numbers as bytes: seven bits a byte, lowest first, the eighth set where more follow."""

from __future__ import annotations

from typing import Final

_MOST: Final = 1 << 62


class Wire:
    """Bytes that are written to, or read from, the front on."""

    def __init__(self, data: bytes = b"") -> None:
        self._data, self._place = bytearray(data), 0

    def written(self) -> bytes:
        """All bytes so far."""
        return bytes(self._data)

    def put(self, number: int) -> None:
        """A number from 0 on, as a varint."""
        while number > 0x7F:
            self._data.append(number & 0x7F | 0x80)
            number >>= 7
        self._data.append(number)

    def put_signed(self, number: int) -> None:
        """A number of either sign: 0, −1, 1, −2, … as 0, 1, 2, 3, and so on."""
        self.put(2 * number if number >= 0 else -2 * number - 1)

    def put_bytes(self, data: bytes) -> None:
        """Bytes as they are; a reader must know how many."""
        self._data += data

    def get(self, most: int = _MOST) -> int:
        """A number from 0 to `most`.

        Raises:
            ValueError: it is larger, or the bytes end.
        """
        number = shift = 0
        while True:
            byte = self.get_bytes(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if number > most or shift > 63:
                raise ValueError(f"a number of at most {most} is larger")
            if byte < 0x80:
                return number

    def get_signed(self, least: int, most: int) -> int:
        """A number from `least` to `most`.

        Raises:
            ValueError: it is another, or the bytes end.
        """
        half, odd = divmod(self.get(), 2)
        number = -half - 1 if odd else half
        if not least <= number <= most:
            raise ValueError(f"a number from {least} to {most} is {number}")
        return number

    def get_bytes(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            ValueError: there are fewer.
        """
        if count > len(self._data) - self._place:
            raise ValueError(f"{count} bytes are announced, {len(self._data) - self._place} are there")
        self._place += count
        return bytes(self._data[self._place - count : self._place])

    def get_texts(self, count: int) -> list[str]:
        """The next texts in UTF-8, each ended by a zero byte.

        Raises:
            ValueError: there are fewer.
        """
        texts = []
        for _ in range(count):
            end = self._data.index(0, self._place)
            texts.append(self._data[self._place : end].decode())
            self._place = end + 1
        return texts

    def rest(self) -> bytes:
        """All that follows."""
        return self.get_bytes(len(self._data) - self._place)
