const instances = [
  { name: 'worker-1', productName: 'RTX 4090 24GB', templateId: 'pytorch-jupyter' },
  { name: 'worker-2', productName: 'RTX 4090 24GB', templateId: 'pytorch-jupyter' },
  { name: 'worker-3', productName: 'RTX 4090 24GB', templateId: 'pytorch-jupyter' }
];

// Create all instances
const createPromises = instances.map(config => 
  fetch('/api/instances', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(config)
  }).then(r => r.json())
);

const results = await Promise.all(createPromises);
console.log('Created instances:', results.map(r => r.instanceId));
