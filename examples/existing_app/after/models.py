"""What the shop keeps: its users and their orders."""

from flask import current_app, g
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str] = mapped_column(unique=True)
    sub: Mapped[str | None] = mapped_column(unique=True)
    orders: Mapped[list["Order"]] = relationship()


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    goods: Mapped[str]


def init_app(app):
    engine = app.extensions["engine"] = create_engine(app.config["DATABASE"])
    Base.metadata.create_all(engine)
    app.teardown_appcontext(close)


def db():
    if "db" not in g:
        g.db = Session(current_app.extensions["engine"])
    return g.db


def close(error):
    if "db" in g:
        g.db.close()


def find(**by):
    return db().scalar(select(User).filter_by(**by))
