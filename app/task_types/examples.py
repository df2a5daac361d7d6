"""Values of the examples in the documents of the contract."""

from __future__ import annotations

TASK_ID = "6f9a3c1e-54a7-4c0d-9f0e-2b7f6d1c8a42"
JOB_ID = "0d9c7a34-1b7e-4f6a-8f57-64f3f7e5b011"
REQUEST_ID = "b21f8b5c-7a57-4d0f-8a3b-0f6d2a9e7c13"
USER_ID = "3c1f0d84-2f4e-4bb8-9a55-1f6f5c1d2e77"
DRAFT_ID = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9"

_STORAGE = "https://project.supabase.co/storage/v1/object"

SKETCH_URL = f"{_STORAGE}/authenticated/user_input_files_bucket/{USER_ID}/sketch.png"
CONCEPT_URL = f"{_STORAGE}/public/makeit3d_app_assets/concepts/{TASK_ID}/0.png"
PHOTO_URL = f"{_STORAGE}/authenticated/user_input_files_bucket/{USER_ID}/photo.jpg"
MODEL_URL = f"{_STORAGE}/public/makeit3d_app_assets/models/{TASK_ID}/model.glb"
