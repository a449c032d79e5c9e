# The container image of bids_roi.
#
#   .ci/build-image       builds it, and tells it its version
#   docker run --rm --user "$(id -u):$(id -g)" -v DATA:/data:ro -v OUT:/out \
#     bids_roi:VERSION /data /out participant
#
# It runs with no network, a read-only root and any uid. Plain instructions only (no
# "# syntax=" line, heredoc, RUN --mount or COPY --link), so that any engine builds it.
# BASE can have a digest (--build-arg BASE=python:3.11-slim-bookworm@sha256:...), or be an
# image of your own with Python >= 3.11 and its venv module.
#
# Every file that is copied into the image has one and the same time, and bytecode that
# does not depend on times: the same sources and libraries make the same layers.

ARG BASE=python:3.11-slim-bookworm

# ---- Stage 1: the libraries. Made anew only when requirements/ change. --------------
FROM ${BASE} AS libraries
WORKDIR /src
COPY requirements/build.txt requirements/image.txt ./
# The environment is made without pip: the pip of the base image fills it from outside,
# and nothing that installs or builds is left in it. The libraries' own tests and the
# sources of what is compiled go: with their bytecode they are 150 MB, a third.
# Nothing comes in that has another hash than requirements/ say, and what comes as sources
# is built in an environment that came in that way. requirements.txt records what was
# installed.
RUN python -m venv --without-pip /opt/build && python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/build install -q --no-cache-dir --require-hashes -r build.txt \
 && python -m pip --python /opt/build wheel -q --no-cache-dir --require-hashes --no-build-isolation --wheel-dir /libraries-wheels -r image.txt \
 && python -m pip --python /opt/venv install -q --no-cache-dir --no-compile --no-deps --no-index /libraries-wheels/*.whl \
 && python -m pip --python /opt/venv freeze > /opt/venv/requirements.txt \
 && find /opt/venv/lib -type d \( -name tests -o -name sample_data \) -prune -exec rm -rf {} + \
 && find /opt/venv/lib -type f \( -name '*.a' -o -name '*.c' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyx' \) -delete
# Bytecode is made here, as nothing can be written later. It is not checked against the
# sources when it is read: file times may change when an image is converted. The official
# Python images come without that of the standard library; making it at each start takes
# 0.1 s, or 0.25 s with the libraries, against 0.04 s. Where it is there, it stays.
# All that goes into the image is moved to /libraries, laid out as in the image.
RUN export PYTHONHASHSEED=0 && touch /tmp/before && mkdir -p /libraries/opt \
 && /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib \
 && stdlib=$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') \
 && python -m compileall -q --invalidation-mode unchecked-hash \
      -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|site-packages|dist-packages)/' "$stdlib" \
 && find "$stdlib" -name '*.pyc' -newer /tmp/before -exec cp --parents {} /libraries \; \
 && mv /opt/venv /libraries/opt && ln -s /libraries/opt/venv /opt/venv \
 && find /libraries -exec touch -h -d 2020-01-01T00:00:00Z {} +

# ---- Stage 2: bids_roi itself, as files below /app laid out as in the image. --------
FROM libraries AS application
COPY LICENSE README.md pyproject.toml ./
COPY bids_roi bids_roi
# The commands start Python with -I: PYTHONPATH and the user's own packages, which
# Apptainer brings in from the host, cannot replace the libraries of the image.
RUN python -m pip --python /opt/build wheel -q --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m pip --python /opt/venv install -q --no-cache-dir --no-compile --no-deps --no-index --root /app /wheels/*.whl \
 && sed -i '1s|$| -I|' /app/opt/venv/bin/bids_roi /app/opt/venv/bin/bids_roi_tools \
 && PYTHONHASHSEED=0 /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash -s /app /app/opt/venv/lib \
 && ls /wheels | cut -d- -f2 > /app/version \
 && chmod -R a+rX,go-w /app \
 && find /app -exec touch -h -d 2020-01-01T00:00:00Z {} +

# ---- Stage 3: atlases, in TemplateFlow's layout. -------------------------------------
# Names as for "bids_roi_tools fetch". From the first that cannot be had they are left
# out, and CONTENTS and the last lines of this step say so; an unknown name is an error.
FROM ${BASE} AS atlases
COPY --from=libraries /libraries/ /
COPY --from=application /app/ /
ARG ATLASES="schaefer100 schaefer200 schaefer300 schaefer400 schaefer500 schaefer600 schaefer800 schaefer1000"
ARG ATLAS_SPACES="MNI152NLin2009cAsym MNI152NLin6Asym"
ARG TEMPLATEFLOW_URL
RUN mkdir -p /atlases/opt/templateflow && cd /atlases/opt/templateflow && word=present \
 && for atlas in ${ATLASES}; do \
      status=0; \
      if [ "$word" = present ]; then \
        BIDS_ROI_TEMPLATEFLOW_URL="${TEMPLATEFLOW_URL}" /opt/venv/bin/bids_roi_tools fetch "$atlas" --space ${ATLAS_SPACES} --dest . || status=$?; \
      fi; \
      case "$status" in 0) ;; 66|75) word=absent ;; *) exit "$status" ;; esac; \
      echo "$word $atlas" >> CONTENTS; \
    done \
 && touch CONTENTS && chmod -R a+rX,go-w /atlases && find /atlases -exec touch -h -d 2020-01-01T00:00:00Z {} + \
 && echo "Atlases of the image:" && cat CONTENTS

# ---- Stage 4: the image. ------------------------------------------------------------
FROM ${BASE}
# Three layers: a new version of bids_roi with the same libraries is a pull of the last.
COPY --from=libraries /libraries/ /
COPY --from=atlases /atlases/ /
COPY --from=application /app/ /

# No HOME: it is whatever the engine and --user make of it, and nothing is kept there.
# One thread per process: bids_roi runs processes side by side and does not need more.
# BIDS_ROI_TEMPLATEFLOW is a home of atlases that is only read; unlike TEMPLATEFLOW_HOME,
# no launcher replaces it.
ENV PATH=/opt/venv/bin:$PATH \
    LANG=C.UTF-8 \
    LC_ALL=C.UTF-8 \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    MKL_NUM_THREADS=1 \
    BIDS_ROI_TEMPLATEFLOW=/opt/templateflow

# Last, as they change with every commit. .ci/build-image gives all of them. The tag goes
# into the dataset_description.json of what the image writes.
ARG BASE
ARG VERSION
ARG REVISION
ENV BIDS_ROI_CONTAINER_TAG=${VERSION:+bids_roi:${VERSION}}
LABEL org.opencontainers.image.title="bids_roi" \
      org.opencontainers.image.description="BIDS App: one time series per atlas region from preprocessed BOLD runs" \
      org.opencontainers.image.authors="The bids_roi developers" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"

# Not root unless asked for; --user may be any uid, also one without a passwd entry.
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT ["/opt/venv/bin/bids_roi"]
