# Create instance
INSTANCE_ID=$(curl -s -X POST http://localhost:3000/api/instances \
  -H "Content-Type: application/json" \
  -d '{"name": "test-instance", "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"}' \
  | jq -r '.instanceId')

# Wait for ready status
while true; do
  STATUS=$(curl -s http://localhost:3000/api/instances/$INSTANCE_ID | jq -r '.status')
  echo "Status: $STATUS"
  
  if [ "$STATUS" = "ready" ]; then
    echo "Instance is ready!"
    break
  elif [ "$STATUS" = "failed" ]; then
    echo "Instance failed!"
    exit 1
  fi
  
  sleep 5
done

# Get connection details
curl -s http://localhost:3000/api/instances/$INSTANCE_ID | jq '.connectionDetails'
