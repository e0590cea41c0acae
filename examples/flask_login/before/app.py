"""An app with Flask-Login: a form, passwords of its own, and "remember me"."""

from flask import Flask, redirect, render_template_string, request, url_for
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from werkzeug.security import check_password_hash, generate_password_hash

FORM = """<form method="post">
<input name="name"> <input name="password" type="password">
<input name="remember" type="checkbox"> <button>Sign in</button></form>"""
PASSWORDS = {"Alice": generate_password_hash("wonderland")}

app = Flask(__name__)
app.secret_key = "change me"
login_manager = LoginManager(app)
login_manager.login_view = "login"


class User(UserMixin):
    def __init__(self, name):
        self.id = self.name = name


@login_manager.user_loader
def load_user(name):
    return User(name) if name in PASSWORDS else None


@app.route("/login", methods=["GET", "POST"])
def login():
    form = request.form
    hashed = PASSWORDS.get(form.get("name"))
    if hashed and check_password_hash(hashed, form["password"]):
        login_user(User(form["name"]), remember="remember" in form)
        return redirect(url_for("home"))
    return FORM


@app.get("/logout")
def logout():
    logout_user()
    return redirect(url_for("home"))


@app.get("/")
def home():
    return render_template_string(
        "{{ current_user.name if current_user.is_authenticated else 'nobody' }}"
    )


@app.get("/reports")
@login_required
async def reports():
    return f"Reports for {current_user.name}"
