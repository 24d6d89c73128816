const API_BASE = 'http://localhost:3000';

// Create instance
const createInstance = async () => {
  const response = await fetch(`${API_BASE}/api/instances`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({
      name: 'my-gpu-instance',
      productName: 'RTX 4090 24GB',
      templateId: 'pytorch-jupyter',
      webhookUrl: 'https://your-app.com/webhook'
    })
  });
  
  const result = await response.json();
  console.log('Instance created:', result.instanceId);
  return result;
};

// Wait for instance to be ready
const waitForReady = async (instanceId) => {
  while (true) {
    const response = await fetch(`${API_BASE}/api/instances/${instanceId}`);
    const instance = await response.json();
    
    if (instance.status === 'ready') {
      console.log('Instance ready!', instance.connectionDetails);
      return instance;
    }
    
    if (instance.status === 'failed') {
      throw new Error('Instance failed');
    }
    
    console.log('Status:', instance.status);
    await new Promise(resolve => setTimeout(resolve, 5000));
  }
};

// Usage
createInstance()
  .then(result => waitForReady(result.instanceId))
  .then(instance => console.log('Ready:', instance))
  .catch(console.error);
