# The container image of bids_roi.
#
#   docker build -t bids_roi .          or: .ci/build-image, which also sets the labels
#   docker run --rm --user "$(id -u):$(id -g)" -v DATA:/data:ro -v OUT:/out \
#     bids_roi /data /out participant
#
# It runs with no network, a read-only root and any uid. Plain instructions only (no
# "# syntax=" line, heredoc, RUN --mount or COPY --link), so that any engine builds it.
# BASE can be a digest, or an image of your own with Python >= 3.11 and its venv module.

ARG BASE=python:3.11-slim-bookworm

# ---- Stage 1: the libraries. Made anew only when pyproject.toml changes. ------------
FROM ${BASE} AS libraries
WORKDIR /src
COPY pyproject.toml ./
# The environment is made without pip: the pip of the base image fills it from outside,
# and nothing that installs or builds is left in it. The libraries' own tests go: with
# their bytecode they are 150 MB, a third. requirements.txt records what was installed.
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > requirements.in \
 && python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv install -q --no-cache-dir --no-compile -r requirements.in \
 && python -m pip --python /opt/venv freeze > /opt/venv/requirements.txt \
 && find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} +
# Bytecode is made here, as nothing can be written later. It is not checked against the
# sources when it is read: file times may change when an image is converted.
RUN /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

# ---- Stage 2: bids_roi itself, as files below /app laid out as in the image. --------
FROM libraries AS application
COPY LICENSE README.md ./
COPY bids_roi bids_roi
# The commands start Python with -I: PYTHONPATH and the user's own packages, which
# Apptainer brings in from the host, cannot replace the libraries of the image.
RUN python -m pip wheel -q --no-cache-dir --no-deps --wheel-dir /wheels . \
 && python -m pip --python /opt/venv install -q --no-cache-dir --no-compile --no-deps --no-index --root /app /wheels/*.whl \
 && sed -i '1s|$| -I|' /app/opt/venv/bin/bids_roi /app/opt/venv/bin/bids_roi_tools \
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash -s /app /app/opt/venv/lib \
 && ls /wheels | cut -d- -f2 > /app/version \
 && chmod -R a+rX,go-w /app

# ---- Stage 3: the image. ------------------------------------------------------------
FROM ${BASE}
# The official Python images come without the bytecode of the standard library; making
# it at each start takes 0.1 s, or 0.25 s with the libraries, against 0.04 s with it.
# Where it is there, nothing is done.
RUN python -m compileall -q -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|site-packages|dist-packages)/' \
      "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && mkdir /opt/templateflow
# Two layers: a new version of bids_roi with the same libraries is a pull of the second.
COPY --from=libraries /opt/venv /opt/venv
COPY --from=application /app/ /

# No HOME: it is whatever the engine and --user make of it, and nothing is kept there.
# One thread per process: bids_roi runs processes side by side and does not need more.
# BIDS_ROI_TEMPLATEFLOW is an empty folder, there for a TemplateFlow home to be mounted
# on; unlike TEMPLATEFLOW_HOME, no launcher replaces it.
ENV PATH=/opt/venv/bin:$PATH \
    LANG=C.UTF-8 \
    LC_ALL=C.UTF-8 \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    MKL_NUM_THREADS=1 \
    BIDS_ROI_TEMPLATEFLOW=/opt/templateflow

# Last, as they change with every commit. .ci/build-image gives both. The tag goes into
# the dataset_description.json of what the image writes.
ARG VERSION
ARG REVISION
ENV BIDS_ROI_CONTAINER_TAG=${VERSION:+bids_roi:${VERSION}}
LABEL org.opencontainers.image.title="bids_roi" \
      org.opencontainers.image.description="BIDS App: one time series per atlas region from preprocessed BOLD runs" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Not root unless asked for; --user may be any uid, also one without a passwd entry.
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT ["/opt/venv/bin/bids_roi"]
