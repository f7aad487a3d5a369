"Package metadata lives in settings.ini; this file only hands it to setuptools."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

STATUS = {"1": "1 - Planning", "2": "2 - Pre-Alpha", "3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}
PYTHONS = [f"3.{n}" for n in range(10, 14)]

def words(key): return cfg.get(key, "").split()

def extras():
    "`train_requirements = a b` in settings.ini becomes the extra `train`"
    end = "_requirements"
    return {k[: -len(end)]: words(k) for k in cfg if k.endswith(end)}

def readme():
    path = here / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else cfg["description"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme(),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    project_urls={"Documentation": cfg["doc_host"] + cfg["doc_baseurl"] + "/", "Source": cfg["git_url"]},
    license="Apache-2.0",
    keywords=words("keywords"),
    classifiers=[
        f"Development Status :: {STATUS[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        "Intended Audience :: Science/Research",
        f"Natural Language :: {cfg['language']}",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        *[f"Programming Language :: Python :: {v}" for v in PYTHONS if int(v[2:]) >= int(cfg["min_python"][2:])],
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=["segtune", "segtune.*"]),
    package_data={"segtune": ["assets/**"]},
    include_package_data=True,
    install_requires=words("requirements"),
    extras_require=extras(),
    python_requires=">=" + cfg["min_python"],
    entry_points={
        "console_scripts": words("console_scripts"),
        "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
